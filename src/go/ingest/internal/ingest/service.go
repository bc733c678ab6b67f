package ingest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambdacontext"
)

const mostDigits = 18 // every such number fits 64 bits

// Service answers the events of one execution environment, one at a time.
type Service struct {
	Writer Writer
	Log    io.Writer

	warm bool
}

type directFailure struct {
	Error *Error `json:"error"`
}

// delivery is what SQS tells about a message; it is empty for a direct event.
type delivery struct {
	receiveCount, sentMS *int64
}

// Invoke implements lambda.Handler. It takes the raw event, so that a direct message meets the same strict parser as
// the body of an SQS message.
func (s *Service) Invoke(ctx context.Context, event []byte) ([]byte, error) {
	defer func() { s.warm = true }() // every message of the first invocation is a cold one
	var object map[string]json.RawMessage
	if utf8.Valid(event) {
		_ = json.Unmarshal(event, &object) // what is not an object is a direct message to refuse
	}
	if records, ok := object["Records"]; ok {
		return json.Marshal(s.answerRecords(ctx, records))
	}
	return json.Marshal(s.answerDirect(ctx, func() (Message, error) { return ParseMessage(event) }))
}

func (s *Service) answerRecords(ctx context.Context, raw json.RawMessage) any {
	records, err := sqsRecords(raw)
	if err != nil {
		return s.answerDirect(ctx, func() (Message, error) { return Message{}, err })
	}
	answer := events.SQSEventResponse{BatchItemFailures: []events.SQSBatchItemFailure{}}
	for _, record := range records {
		outcome := s.process(ctx, func() (Message, error) { return ParseMessage([]byte(record.body)) }, record.delivery)
		if outcome.Error != nil {
			failure := events.SQSBatchItemFailure{ItemIdentifier: record.messageID}
			answer.BatchItemFailures = append(answer.BatchItemFailures, failure)
		}
	}
	return answer
}

func (s *Service) answerDirect(ctx context.Context, parse func() (Message, error)) any {
	outcome := s.process(ctx, parse, delivery{})
	if outcome.Error != nil {
		return directFailure{outcome.Error}
	}
	return outcome
}

// process does the work of one message, logs its record and returns its summary.
func (s *Service) process(ctx context.Context, parse func() (Message, error), from delivery) *summary {
	outcome := &summary{
		Lang:         lang,
		RequestID:    requestID(ctx),
		ColdStart:    !s.warm,
		ReceiveCount: from.receiveCount,
		SentMS:       from.sentMS,
		StartedMS:    time.Now().UnixMilli(),
	}
	s.work(ctx, parse, outcome)
	if outcome.Batch == nil {
		outcome.Rejected = 1
	}
	outcome.FinishedMS = time.Now().UnixMilli()
	_ = emit(s.Log, outcome) // an answer is worth more than its log line
	return outcome
}

// work fills in what the message asked for and what became of it. A panic ends here: its text and stack must reach
// neither the caller nor the log.
func (s *Service) work(ctx context.Context, parse func() (Message, error), outcome *summary) {
	defer func() {
		if fault := recover(); fault != nil {
			outcome.fail(fault)
		}
	}()
	message, err := parse()
	if err == nil {
		outcome.RunID = runID(message.BatchID)
		outcome.Message = &message
		outcome.Batch = &Batch{}
		err = s.Writer.Write(ctx, message, outcome.Batch, outcome.ColdStart)
	}
	if err != nil && !errors.As(err, &outcome.Error) {
		outcome.fail(err)
	}
}

// fail notes an error that nobody foresaw; only its type may be shown.
func (s *summary) fail(fault any) {
	s.Error = &Error{Code: "InternalError", Message: "internal error"}
	s.ErrorType = fmt.Sprintf("%T", fault)
}

// sqsRecord is what the function reads of a record.
type sqsRecord struct {
	messageID, body string
	delivery
}

// sqsRecords does not decode into [events.SQSMessage]: encoding/json would match keys in any case, take null for an
// empty text, join objects that are there twice, and refuse members that nobody reads.
func sqsRecords(raw json.RawMessage) ([]sqsRecord, error) {
	refusal := &Error{Code: "InvalidMessage", Message: "Records must be the records of an SQS event"}
	var elements []map[string]json.RawMessage
	if err := json.Unmarshal(raw, &elements); err != nil || elements == nil {
		return nil, refusal
	}
	records := make([]sqsRecord, len(elements))
	for i, element := range elements {
		source, _ := unquote(element["eventSource"])
		id, _ := unquote(element["messageId"])
		body, isText := unquote(element["body"])
		attributes, areObject := map[string]json.RawMessage{}, true
		if given, ok := element["attributes"]; ok {
			attributes = nil // null leaves it so
			areObject = json.Unmarshal(given, &attributes) == nil && attributes != nil
		}
		if source != "aws:sqs" || id == "" || !utf8.ValidString(id) || !isText && element["body"] != nil || !areObject {
			return nil, refusal
		}
		records[i] = sqsRecord{id, body, delivery{
			receiveCount: wholeNumber(attributes["ApproximateReceiveCount"]),
			sentMS:       wholeNumber(attributes["SentTimestamp"]),
		}}
	}
	return records, nil
}

func requestID(ctx context.Context) string {
	invocation, ok := lambdacontext.FromContext(ctx)
	if !ok {
		return ""
	}
	return invocation.AwsRequestID
}

// wholeNumber reads what SQS writes as text; longer ones are none of its numbers.
func wholeNumber(raw json.RawMessage) *int64 {
	digits, _ := unquote(raw)
	n, err := strconv.ParseUint(digits, 10, 63)
	if err != nil || len(digits) > mostDigits {
		return nil
	}
	number := int64(n)
	return &number
}
