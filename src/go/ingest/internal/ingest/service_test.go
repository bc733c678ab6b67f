package ingest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/lambdacontext"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

var (
	clock    = regexp.MustCompile(`("(?:Timestamp|started_ms|finished_ms|batch_elapsed_ms|p50|p95|max)":)[0-9.]+`)
	putClock = regexp.MustCompile(`("t_start_ms":{"N":)"[0-9]+"`)
)

// answer is one entry of a scenario's script for DynamoDB.
type answer struct {
	Status int
	Body   json.RawMessage
	Text   string
	Drop   bool
	Leave  int // so many of the call's items are left unprocessed, the last ones first
}

// fakeDynamoDB answers puts from a script, the last answer for ever, and keeps what it was asked.
type fakeDynamoDB struct {
	mutex   sync.Mutex
	answers []answer
	puts    []map[string]any
}

func (f *fakeDynamoDB) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	var put map[string]any
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if err := json.Unmarshal(putClock.ReplaceAll(body, []byte(`$1"<clock>"`)), &put); err != nil {
		panic(err)
	}
	operation := "PutItem"
	if put["RequestItems"] != nil {
		operation = "BatchWriteItem"
	}
	if got := r.Header.Get("X-Amz-Target"); got != "DynamoDB_20120810."+operation {
		panic(got)
	}
	f.puts = append(f.puts, put)
	next := f.answers[0]
	if len(f.answers) > 1 {
		f.answers = f.answers[1:]
	}
	if next.Drop {
		panic(http.ErrAbortHandler)
	}
	if next.Leave > 0 {
		next.Body = unprocessed(body, next)
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.0")
	w.WriteHeader(next.Status)
	_, _ = io.WriteString(w, next.Text+string(next.Body))
}

func unprocessed(body []byte, next answer) []byte {
	var call struct{ RequestItems map[string][]any }
	answer := map[string]any{}
	if err := errors.Join(json.Unmarshal(body, &call), json.Unmarshal(next.Body, &answer)); err != nil {
		panic(err)
	}
	requests := call.RequestItems["items"]
	slices.Reverse(requests)
	answer["UnprocessedItems"] = map[string]any{"items": requests[:min(next.Leave, len(requests))]}
	text, _ := json.Marshal(answer)
	return text
}

// newService is a fresh execution environment whose calls go to dynamodb.
func newService(t *testing.T, dynamodb http.Handler) (*Service, *bytes.Buffer) {
	t.Helper()
	server := httptest.NewServer(dynamodb)
	t.Cleanup(server.Close)
	for name, value := range map[string]string{
		"AWS_ENDPOINT_URL":      server.URL,
		"AWS_REGION":            "us-east-1",
		"AWS_ACCESS_KEY_ID":     "test",
		"AWS_SECRET_ACCESS_KEY": "test",
		"AWS_PROFILE":           "",
		"AWS_NEW_RETRIES_2026":  "", // so that what NewClient sets is undone
	} {
		t.Setenv(name, value)
	}
	client, err := NewClient(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	return &Service{Writer: Writer{Client: client, Table: "items"}, Log: &log}, &log
}

func invoke(t *testing.T, service *Service, event []byte) string {
	t.Helper()
	return invokeWithin(t, service, event, 0)
}

// ending is a context that tells its deadline but cancels nothing then, so that no test depends on its own speed.
type ending struct {
	context.Context
	at time.Time
}

func (e ending) Deadline() (time.Time, bool) { return e.at, true }

// invokeWithin invokes with so many milliseconds left until the timeout, a minute if 0.
func invokeWithin(t *testing.T, service *Service, event []byte, remainingMS int) string {
	t.Helper()
	if remainingMS == 0 {
		remainingMS = 60_000
	}
	ctx := lambdacontext.NewContext(context.Background(), &lambdacontext.LambdaContext{AwsRequestID: "request-1"})
	answer, err := service.Invoke(ending{ctx, time.Now().Add(time.Duration(remainingMS) * time.Millisecond)}, event)
	if err != nil {
		t.Fatal(err)
	}
	return string(answer)
}

// bySeq puts PutItem requests into the order of their items.
func bySeq(puts []map[string]any) {
	seq := func(put map[string]any) string {
		return put["Item"].(map[string]any)["sk"].(map[string]any)["S"].(string)
	}
	slices.SortStableFunc(puts, func(a, b map[string]any) int { return strings.Compare(seq(a), seq(b)) })
}

func withoutClock(text string) string {
	return clock.ReplaceAllString(text, `$1"<clock>"`)
}

func TestScenarios(t *testing.T) {
	var scenarios []struct {
		Name        string
		Invocations []struct {
			Event, Answer json.RawMessage
			RemainingMS   int `json:"remaining_ms"`
		}
		DynamoDB    []answer
		PutsInOrder *bool `json:"puts_in_order"`
		Puts        []map[string]any
		Log         []json.RawMessage
	}
	text, err := os.ReadFile(contracts + "scenarios.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(bytes.ReplaceAll(text, []byte("<lang>"), []byte("go")), &scenarios); err != nil {
		t.Fatal(err)
	}
	for _, scenario := range scenarios {
		t.Run(scenario.Name, func(t *testing.T) {
			dynamodb := &fakeDynamoDB{answers: scenario.DynamoDB, puts: []map[string]any{}}
			service, log := newService(t, dynamodb)
			for _, invocation := range scenario.Invocations {
				got, want := withoutClock(invokeWithin(t, service, invocation.Event, invocation.RemainingMS)), compact(t, invocation.Answer)
				if got != want {
					t.Errorf("answer\ngot  %s\nwant %s", got, want)
				}
			}
			var want strings.Builder
			for _, line := range scenario.Log {
				want.WriteString(compact(t, line) + "\n")
			}
			if got := withoutClock(log.String()); got != want.String() {
				t.Errorf("log\ngot  %s\nwant %s", got, want.String())
			}
			dynamodb.mutex.Lock() // a dropped connection lets the SDK go on before its handler has ended
			if scenario.PutsInOrder != nil && !*scenario.PutsInOrder {
				bySeq(dynamodb.puts)
				bySeq(scenario.Puts)
			}
			got, _ := json.Marshal(dynamodb.puts)
			dynamodb.mutex.Unlock()
			if want, _ := json.Marshal(scenario.Puts); !bytes.Equal(got, want) {
				t.Errorf("puts\ngot  %s\nwant %s", got, want)
			}
		})
	}
}

// TestRecords lets tests/contract/test_parity.py compare this function with the Python one: it reads scenarios and
// writes, one line each, the answer, the log record and the number of calls to DynamoDB.
func TestRecords(t *testing.T) {
	from, to := os.Getenv("INGEST_SCENARIOS"), os.Getenv("INGEST_RECORDS")
	if from == "" || to == "" {
		t.Skip("INGEST_SCENARIOS and INGEST_RECORDS are not set")
	}
	var scenarios []struct {
		Event       json.RawMessage
		DynamoDB    []answer
		RemainingMS int `json:"remaining_ms"`
	}
	readJSON(t, from, &scenarios)
	var out bytes.Buffer
	for _, scenario := range scenarios {
		dynamodb := &fakeDynamoDB{answers: scenario.DynamoDB}
		service, log := newService(t, dynamodb)
		got := invokeWithin(t, service, scenario.Event, scenario.RemainingMS)
		dynamodb.mutex.Lock()
		fmt.Fprintln(&out, withoutClock(got), strings.TrimSpace(withoutClock(log.String())), len(dynamodb.puts))
		dynamodb.mutex.Unlock()
	}
	if err := os.WriteFile(to, out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestSDKAddsNoLogLines(t *testing.T) {
	file, err := os.Create(t.TempDir() + "/stderr")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	stderr := os.Stderr
	os.Stderr = file
	defer func() { os.Stderr = stderr }()
	// The answers carry no checksum, like those of an emulator.
	service, _ := newService(t, &fakeDynamoDB{answers: []answer{{Status: 200, Body: []byte(`{}`)}}})
	invoke(t, service, []byte(`{"batch_id":"b","count":2}`))
	if text, err := os.ReadFile(file.Name()); err != nil || len(text) > 0 {
		t.Errorf("stderr: %s (%v)", text, err)
	}
}

func TestTimesAreInOrderAndOfThisMoment(t *testing.T) {
	service, log := newService(t, &fakeDynamoDB{answers: []answer{{Status: 200, Body: []byte(`{}`)}}})
	before := time.Now().UnixMilli()
	text := invoke(t, service, []byte(`{"batch_id":"b","size_bytes":1,"count":30}`))
	after := time.Now().UnixMilli()
	var got summary
	if err := json.Unmarshal([]byte(text), &got); err != nil {
		t.Fatal(err)
	}
	if !(before <= got.StartedMS && got.StartedMS <= got.FinishedMS && got.FinishedMS <= after) {
		t.Errorf("started %d, finished %d, outside %d to %d", got.StartedMS, got.FinishedMS, before, after)
	}
	put := got.PutMS
	if !(0 < put.P50 && put.P50 <= put.P95 && put.P95 <= put.Max && put.Max <= got.ElapsedMS) {
		t.Errorf("quantiles out of order: %s", text)
	}
	if !strings.HasSuffix(log.String(), ","+text[1:]+"\n") {
		t.Errorf("the answer is not the record without its metadata:\n%s\n%s", text, log)
	}
}

func TestPanicShowsOnlyItsType(t *testing.T) {
	var log bytes.Buffer
	service := &Service{Log: &log} // without a client every put panics
	got := invoke(t, service, []byte(`{"batch_id":"b"}`))
	if want := `{"error":{"code":"InternalError","message":"internal error"}}`; got != want {
		t.Errorf("got %s", got)
	}
	if !strings.Contains(log.String(), `"error_type":"runtime.errorString"`) || strings.Contains(log.String(), "goroutine") {
		t.Errorf("log: %s", &log)
	}
}

func TestClientRetriesAndWaitsAsBoto3Does(t *testing.T) {
	service, _ := newService(t, &fakeDynamoDB{})
	retryer := service.Writer.Client.Options().Retryer
	if got := retryer.MaxAttempts(); got != 3 {
		t.Errorf("%d attempts, want 3", got)
	}
	httpClient := service.Writer.Client.Options().HTTPClient.(plainBodies).next.(*awshttp.BuildableClient)
	if connect, read := httpClient.GetDialer().Timeout, httpClient.GetTransport().ResponseHeaderTimeout; connect != 2*time.Second || read != 5*time.Second {
		t.Errorf("time limits %v to connect and %v to read, want 2s and 5s", connect, read)
	}
	if kept := httpClient.GetTransport().MaxIdleConnsPerHost; kept != concurrency || concurrency != 8 {
		t.Errorf("%d idle connections are kept, want 8", kept)
	}
	for code, most := range map[string]time.Duration{
		"InternalServerError":                    25 * time.Millisecond,
		"ProvisionedThroughputExceededException": time.Second,
	} {
		var longest time.Duration
		for range 1000 {
			delay, err := retryer.RetryDelay(0, &smithy.GenericAPIError{Code: code})
			if err != nil {
				t.Fatal(err)
			}
			longest = max(longest, delay)
		}
		if longest > most || longest < most/2 {
			t.Errorf("%s: first delay up to %v, want %v", code, longest, most)
		}
	}
}

type doer func(*http.Request) (*http.Response, error)

func (do doer) Do(request *http.Request) (*http.Response, error) { return do(request) }

// net/http may look whether a body has ended when smithy-go has closed it already: see plainBodies.
func TestBodyThatWasClosedReadsAsEnded(t *testing.T) {
	request, err := smithyhttp.NewStackRequest().(*smithyhttp.Request).SetStream(strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	var body io.ReadCloser
	client := plainBodies{doer(func(request *http.Request) (*http.Response, error) {
		body = request.Body
		return nil, nil
	})}
	built := request.Build(context.Background())
	closeEarly := built.Body.Close
	if _, err := client.Do(built); err != nil {
		t.Fatal(err)
	}
	_ = closeEarly()

	if _, err := io.Copy(io.Discard, body); err != nil {
		t.Errorf("the look at a closed body gave %v", err)
	}
}

func TestQuantilesAreNearestRank(t *testing.T) {
	var puts []time.Duration
	for n := 20; n >= 1; n-- {
		puts = append(puts, time.Duration(n)*time.Millisecond)
	}
	if got, want := *quantilesOf(puts), (quantiles{20, 10, 19, 20}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	if got, want := *quantilesOf(puts[19:]), (quantiles{1, 1, 1, 1}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
}
