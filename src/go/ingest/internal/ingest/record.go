package ingest

import (
	"encoding/json"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// summary is what is known about one message when its work has ended. Absent is what was not measured or does not
// apply; the members of a nil Message or Batch are absent too.
type summary struct {
	Lang      string `json:"lang"`
	RunID     string `json:"run_id,omitempty"`
	RequestID string `json:"request_id"`
	*Message
	*Batch
	Rejected     int    `json:"rejected,omitempty"`
	ColdStart    bool   `json:"cold_start"`
	ReceiveCount *int64 `json:"receive_count,omitempty"`
	SentMS       *int64 `json:"sent_ms,omitempty"`
	StartedMS    int64  `json:"started_ms"`
	FinishedMS   int64  `json:"finished_ms"`
	Error        *Error `json:"error,omitempty"`
	ErrorType    string `json:"error_type,omitempty"`
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

// emit writes the record of one message as one line in one write, with every metric the summary holds.
func emit(log io.Writer, s *summary) error {
	line, err := json.Marshal(record{
		AWS: metadata{
			Timestamp:         s.FinishedMS,
			CloudWatchMetrics: []directive{{"lambdalab", [][]string{{"lang"}}, s.metrics()}},
		},
		summary: s,
	})
	if err != nil {
		return err
	}
	_, err = log.Write(append(line, '\n'))
	return err
}

func (s *summary) metrics() []metric {
	if s.Batch == nil {
		return []metric{{"rejected", "Count"}}
	}
	metrics := []metric{{"written", "Count"}}
	if s.Duplicates != nil {
		metrics = append(metrics, metric{"duplicates", "Count"})
	}
	metrics = append(metrics, metric{"batch_elapsed_ms", "Milliseconds"})
	if s.ConsumedWRU != nil {
		metrics = append(metrics, metric{"consumed_wru", "Count"})
	}
	return metrics
}

// runID takes what stands before the first colon of the batch id, where the lab puts its run id.
func runID(batchID string) string {
	id, _, found := strings.Cut(batchID, ":")
	if !found {
		return ""
	}
	return id
}

// decimal is a number that always shows its fraction, as Python's floats do, so that the records of both languages
// compare byte by byte.
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
