package s3ingest

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"math/big"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// The same in Python, see src/python/s3_ingest/request.py.
const (
	maxObjectMB = 10_240 // at most 2,048 parts; S3 allows 10,000
	baseMB      = 96     // runtime, SDK and connections, without any part
	maxSeed     = 1<<53 - 1
	leastPartMB = 5
)

var (
	fieldNames = []string{
		"run_id", "workload", "batch_events", "event_bytes", "multipart_mb", "parallelism", "seed",
		"reserved_concurrency", "object_mb",
	}
	runIDForm   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$`)
	bucketForm  = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)
	integerForm = regexp.MustCompile(`^[0-9]{1,18}$`)
	numberForm  = regexp.MustCompile(`^[0-9]{1,18}(\.[0-9]{1,6})?$`)
)

// Request is one accepted invocation.
type Request struct {
	Workload            string
	BatchEvents         int
	EventBytes          int
	ObjectBytes         int64
	MultipartMB         int
	Parallelism         int
	Seed                int64
	ReservedConcurrency int
}

// event is what the caller sent, once it is known to be an object.
type event map[string]any

func readEvent(text []byte) (event, error) {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var value any
	if !json.Valid(text) || decoder.Decode(&value) != nil {
		return nil, &Error{Code: "InvalidEvent", Message: "event must be a JSON object"}
	}
	object, ok := value.(map[string]any)
	if !ok {
		return nil, &Error{Code: "InvalidEvent", Message: "event must be a JSON object"}
	}
	return object, nil
}

// runID takes the caller's run id, also of an event that will be refused for something else; else it makes one.
func (e event) runID(startedMS int64) string {
	if given, ok := e["run_id"].(string); ok && runIDForm.MatchString(given) {
		return given
	}
	return fmt.Sprintf("run_%d_%s", startedMS, strings.ToLower(rand.Text()[:6]))
}

// bucketName reads the bucket, which an event cannot change.
func bucketName() (string, error) {
	bucket := os.Getenv("OUTPUT_BUCKET")
	if bucket == "" {
		return "", fieldError("MissingSetting", "OUTPUT_BUCKET", "OUTPUT_BUCKET is not set: it must name the bucket")
	}
	if !bucketForm.MatchString(bucket) {
		return "", fieldError("InvalidValue", "OUTPUT_BUCKET", "OUTPUT_BUCKET must be the name of a bucket")
	}
	return bucket, nil
}

// request checks everything that can be known before the first upload. Its error is always an [*Error].
func (e event) request() (*Request, error) {
	var unknown []string
	for name := range e {
		if !slices.Contains(fieldNames, name) {
			unknown = append(unknown, name)
		}
	}
	if unknown != nil {
		name := printable(slices.Min(unknown))
		rule := name + " is not a field of the event; the fields are " + strings.Join(fieldNames, ", ")
		return nil, fieldError("UnknownField", name, rule)
	}
	given := reader{event: e}
	given.checkRunID()
	request := &Request{
		Workload:            given.workload(),
		BatchEvents:         int(given.integer("batch_events", 1, 1, 1000)),
		EventBytes:          int(given.integer("event_bytes", 1024, 256, 8192)),
		MultipartMB:         int(given.integer("multipart_mb", 8, leastPartMB, 512)),
		Parallelism:         int(given.integer("parallelism", 1, 1, mostParallel)),
		Seed:                given.integer("seed", randomSeed(), 0, maxSeed),
		ReservedConcurrency: int(given.integer("reserved_concurrency", 0, 0, 99_999)),
	}
	request.ObjectBytes = int64(given.objectMB() * mib)
	if given.err == nil && request.Workload == "batch" {
		given.checkBatch(request)
	}
	if given.err != nil {
		return nil, given.err
	}
	return request, nil
}

func randomSeed() int64 {
	seed, _ := rand.Int(rand.Reader, big.NewInt(maxSeed)) // it does not fail
	return seed.Int64()
}

// reader reads settings in the order they are asked for and keeps the first error.
type reader struct {
	event event
	err   *Error
}

// find returns the value of a setting and the name it was given by: the event's, or the variable's.
func (r *reader) find(name string, form *regexp.Regexp, fallback any) (any, string) {
	if value, ok := r.event[name]; ok {
		return value, name
	}
	variable := strings.ToUpper(name)
	text := os.Getenv(variable)
	switch {
	case text == "":
		return fallback, name
	case form != nil && form.MatchString(text):
		return json.Number(text), variable
	}
	return text, variable
}

func (r *reader) checkRunID() {
	value, present := r.event["run_id"]
	const rule = "run_id must be a string of 1 to 128 characters from A-Z a-z 0-9 . _ : - that begins with a letter or digit"
	text, ok := value.(string)
	switch {
	case !present:
	case !ok:
		r.fail("InvalidType", "run_id", rule)
	case !runIDForm.MatchString(text):
		r.fail("InvalidValue", "run_id", rule)
	}
}

func (r *reader) workload() string {
	value, name := r.find("workload", nil, "events")
	text, ok := value.(string)
	if !ok {
		r.fail("InvalidType", name, name+" must be events or batch")
	} else if text != "events" && text != "batch" {
		r.fail("InvalidValue", name, name+" must be events or batch")
	}
	return text
}

func (r *reader) integer(setting string, fallback, least, most int64) int64 {
	value, name := r.find(setting, integerForm, json.Number(strconv.FormatInt(fallback, 10)))
	rule := fmt.Sprintf("%s must be an integer from %d to %d", name, least, most)
	number, ok := value.(json.Number)
	if !ok || strings.ContainsAny(number.String(), ".eE") {
		r.fail("InvalidType", name, rule)
		return 0
	}
	n, err := number.Int64()
	if err != nil || n < least || n > most {
		r.fail("InvalidValue", name, rule)
	}
	return n
}

func (r *reader) objectMB() float64 {
	value, name := r.find("object_mb", numberForm, json.Number("100"))
	rule := fmt.Sprintf("%s must be a number from %d to %d", name, leastPartMB, maxObjectMB)
	number, ok := value.(json.Number)
	if !ok {
		r.fail("InvalidType", name, rule)
		return 0
	}
	megabytes, err := number.Float64()
	if err != nil || megabytes < leastPartMB || megabytes > maxObjectMB {
		r.fail("InvalidValue", name, rule)
		return 0
	}
	return megabytes
}

func (r *reader) checkBatch(request *Request) {
	if request.ObjectBytes < int64(request.MultipartMB)*mib {
		r.fail("InvalidValue", "object_mb", "object_mb must be at least multipart_mb")
	}
	neededMB := baseMB + request.MultipartMB*(request.Parallelism+1)
	if memory := memoryMB(); memory != 0 && neededMB > memory {
		r.fail("InvalidValue", "multipart_mb", fmt.Sprintf(
			"%d parts of %d MB at once need %d MB of memory and the function has %d; "+
				"lower multipart_mb or parallelism, or give it more",
			request.Parallelism, request.MultipartMB, neededMB, memory))
	}
}

func memoryMB() int {
	memory, _ := strconv.Atoi(os.Getenv("AWS_LAMBDA_FUNCTION_MEMORY_SIZE")) // Lambda's own; 0 outside of it
	return memory
}

func (r *reader) fail(code, name, rule string) {
	if r.err == nil {
		r.err = fieldError(code, name, rule)
	}
}
