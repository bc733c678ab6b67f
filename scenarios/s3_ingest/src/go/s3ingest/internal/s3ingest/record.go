package s3ingest

import (
	"encoding/json"
	"io"
	"math"
	"slices"
	"strconv"
	"time"
)

// summary is what is known about one invocation when its work has ended. Absent is what is not there; the members of a
// nil factors or Transfer are absent too.
type summary struct {
	OK           bool   `json:"ok"`
	Lang         string `json:"lang"`
	RunID        string `json:"run_id"`
	RequestID    string `json:"request_id"`
	FunctionName string `json:"function_name,omitempty"`
	Region       string `json:"region,omitempty"`
	MemoryMB     int    `json:"memory_mb,omitempty"`
	*factors
	StartedMS int64 `json:"ts_start_ms"`
	EndedMS   int64 `json:"ts_end_ms"`
	*Transfer
	Bucket      string   `json:"s3_bucket,omitempty"`
	Key         string   `json:"s3_key,omitempty"`
	ColdStart   bool     `json:"is_cold_start"`
	ColdStartMS *decimal `json:"cold_start_ms,omitempty"`
	Failed      int      `json:"failed,omitempty"`
	Error       *Error   `json:"error,omitempty"`
	ErrorType   string   `json:"error_type,omitempty"`
}

// factors are the settings that decide what the workload does.
type factors struct {
	Workload            string `json:"workload"`
	ReservedConcurrency int    `json:"reserved_concurrency"`
	BatchEvents         int    `json:"batch_events,omitempty"`
	EventBytes          int    `json:"event_bytes,omitempty"`
	MultipartMB         int    `json:"multipart_part_mb,omitempty"`
	Parallelism         int    `json:"parallelism,omitempty"`
	Seed                int64  `json:"seed"`
}

func factorsOf(request *Request) *factors {
	found := &factors{Workload: request.Workload, ReservedConcurrency: request.ReservedConcurrency, Seed: request.Seed}
	if request.Workload == "events" {
		found.BatchEvents, found.EventBytes = request.BatchEvents, request.EventBytes
	} else {
		found.MultipartMB, found.Parallelism = request.MultipartMB, request.Parallelism
	}
	return found
}

// record is a summary as it is logged: in CloudWatch Embedded Metric Format.
type record struct {
	AWS metadata `json:"_aws"`
	*summary
}

type metadata struct {
	Timestamp         int64
	CloudWatchMetrics []directive
}

type directive struct {
	Namespace  string
	Dimensions [][]string
	Metrics    []metric
}

type metric struct{ Name, Unit string }

// emit writes the record as one line in one write.
func emit(log io.Writer, s *summary) error {
	line, err := json.Marshal(record{
		AWS: metadata{
			Timestamp:         s.EndedMS,
			CloudWatchMetrics: []directive{{"LambdaS3Study", s.dimensions(), s.metrics()}},
		},
		summary: s,
	})
	if err != nil {
		return err
	}
	_, err = log.Write(append(line, '\n'))
	return err
}

// dimensions has no run id: with it every run would create metrics of its own, which are billed. A failure has a second
// set, so that one alarm sees what a function failed, whatever the workload.
func (s *summary) dimensions() [][]string {
	names := []string{}
	if s.factors != nil {
		names = append(names, "workload")
	}
	if s.FunctionName != "" {
		names = append(names, "function_name")
	}
	if s.Region != "" {
		names = append(names, "region")
	}
	if !s.OK && s.factors != nil {
		return [][]string{names, names[1:]}
	}
	return [][]string{names}
}

// metrics counts a failure as one and lends none of its times to the percentiles of the rest.
func (s *summary) metrics() []metric {
	if !s.OK {
		return []metric{{"failed", "Count"}}
	}
	metrics := []metric{
		{"latency_ms", "Milliseconds"},
		{"generate_ms", "Milliseconds"},
		{"object_bytes", "Bytes"},
		{"events_generated", "Count"},
	}
	if s.ColdStartMS != nil {
		metrics = append(metrics, metric{"cold_start_ms", "Milliseconds"})
	}
	return metrics
}

// decimal is a number that always shows its fraction, as Python's floats do.
type decimal float64

// MarshalJSON implements [json.Marshaler].
func (d decimal) MarshalJSON() ([]byte, error) {
	digits := strconv.AppendFloat(nil, float64(d), 'f', -1, 64)
	if !slices.Contains(digits, '.') {
		digits = append(digits, ".0"...)
	}
	return digits, nil
}

func milliseconds(d time.Duration) decimal {
	return decimal(math.Round(float64(d)/1e3) / 1e3)
}
