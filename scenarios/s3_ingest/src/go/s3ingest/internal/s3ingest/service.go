package s3ingest

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/aws/aws-lambda-go/lambdacontext"
)

var suffixes = map[string]string{"events": "jsonl", "batch": "bin"}

// Service answers the events of one execution environment, one at a time.
type Service struct {
	Uploader *Uploader
	Log      io.Writer
	Loaded   time.Time // when the process began

	warm bool
}

// Invoke implements lambda.Handler: it does the work, logs its record and answers with it. Nothing escapes as an error.
func (s *Service) Invoke(ctx context.Context, payload []byte) ([]byte, error) {
	outcome := &summary{
		Lang:         "go",
		RequestID:    requestID(ctx),
		FunctionName: os.Getenv("AWS_LAMBDA_FUNCTION_NAME"),
		Region:       os.Getenv("AWS_REGION"),
		MemoryMB:     memoryMB(),
		ColdStart:    !s.warm,
	}
	if !s.warm {
		elapsed := milliseconds(time.Since(s.Loaded))
		outcome.ColdStartMS = &elapsed
	}
	s.warm = true
	outcome.StartedMS = time.Now().UnixMilli()
	s.work(ctx, payload, outcome)
	outcome.OK = outcome.Error == nil
	if !outcome.OK {
		outcome.Failed = 1
	}
	outcome.EndedMS = time.Now().UnixMilli()
	_ = emit(s.Log, outcome) // an answer is worth more than its log line
	return json.Marshal(outcome)
}

// work fills in what was asked for and what became of it. A panic ends here: its text and stack must reach neither the
// caller nor the log.
func (s *Service) work(ctx context.Context, payload []byte, outcome *summary) {
	defer func() {
		if fault := recover(); fault != nil {
			outcome.fail(fault)
		}
	}()
	if err := s.upload(ctx, payload, outcome); err != nil && !errors.As(err, &outcome.Error) {
		outcome.fail(err)
	}
}

func (s *Service) upload(ctx context.Context, payload []byte, outcome *summary) error {
	asked, refusal := readEvent(payload)
	outcome.RunID = asked.runID(outcome.StartedMS)
	bucket, err := bucketName()
	if err != nil {
		return err
	}
	outcome.Bucket = bucket
	if refusal != nil {
		return refusal
	}
	request, err := asked.request()
	if err != nil {
		return err
	}
	outcome.factors = factorsOf(request)
	outcome.Key = fmt.Sprintf("%s/%s/%d-%s.%s",
		request.Workload, outcome.RunID, outcome.StartedMS, randomHex(), suffixes[request.Workload])
	outcome.Transfer = &Transfer{}
	return s.Uploader.Upload(ctx, request, bucket, outcome.Key, outcome.Transfer)
}

// fail notes an error that nobody foresaw; only its type may be shown.
func (s *summary) fail(fault any) {
	s.Error = &Error{Code: "InternalError", Message: "internal error"}
	s.ErrorType = fmt.Sprintf("%T", fault)
}

// randomHex has the form of Python's uuid4().hex.
func randomHex() string {
	var id [16]byte
	_, _ = rand.Read(id[:]) // it does not fail
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
	return fmt.Sprintf("%x", id)
}

func requestID(ctx context.Context) string {
	invocation, ok := lambdacontext.FromContext(ctx)
	if !ok {
		return ""
	}
	return invocation.AwsRequestID
}
