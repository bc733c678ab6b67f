package ingest

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-lambda-go/lambdacontext"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
)

// The seeds are the tables of contracts/ and what is in testdata/fuzz: inputs on which the two languages once differed.
// `go test` runs them all; `make fuzz` goes on from them.

// FuzzParseMessage looks for a body that is accepted beyond its bounds, or is not the same when it is written again.
func FuzzParseMessage(f *testing.F) {
	for _, body := range bodiesOfCases(f) {
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		message, err := ParseMessage(body)
		if err != nil {
			refusal, ok := err.(*Error)
			if !ok || !slices.Contains(refusals, refusal.Code) {
				t.Fatalf("%q is refused with %#v", body, err)
			}
			if refusal.Field != nil && len(*refusal.Field) > longestName {
				t.Fatalf("%q has a field name of %d characters in its error", body, len(*refusal.Field))
			}
			return
		}
		if !json.Valid(body) || !isWord(message.BatchID, 256) || !isWord(message.Label, 64) ||
			message.SizeBytes < 1 || message.SizeBytes > maxSizeBytes || message.Count < 1 || message.Count > maxCount ||
			message.SizeBytes*message.Count > maxBatchBytes {
			t.Fatalf("%q is accepted as %+v", body, message)
		}
		again, err := json.Marshal(message)
		if err != nil {
			t.Fatal(err)
		}
		if same, err := ParseMessage(again); err != nil || same != message {
			t.Fatalf("%q is %+v, written again %+v (%v)", body, message, same, err)
		}
	})
}

var refusals = []string{"InvalidJson", "InvalidMessage", "UnknownField", "MissingField", "InvalidType", "InvalidValue"}

// FuzzInvoke looks for an event whose answer is an error, shows a stack, or does not fit its log records.
func FuzzInvoke(f *testing.F) {
	for _, body := range bodiesOfCases(f) {
		f.Add(body)
	}
	for _, event := range eventsOfScenarios(f) {
		f.Add(event)
	}
	ctx := lambdacontext.NewContext(context.Background(), &lambdacontext.LambdaContext{AwsRequestID: "request-1"})
	var log bytes.Buffer
	service := &Service{Writer: Writer{Client: agreeable(), Table: "items"}, Log: &log}
	f.Fuzz(func(t *testing.T, event []byte) {
		log.Reset()
		text, err := service.Invoke(ctx, event)
		if err != nil {
			t.Fatalf("%q gives the error %v", event, err)
		}
		var answer struct {
			Failures []struct{ ItemIdentifier string } `json:"batchItemFailures"`
			Error    *Error
		}
		if err := json.Unmarshal(text, &answer); err != nil {
			t.Fatalf("%q is answered with %q: %v", event, text, err)
		}
		failed, records := 0, strings.SplitAfter(log.String(), "\n")
		records = records[:len(records)-1]
		for _, line := range records {
			var record struct {
				Written, Count, Rejected int
				Error                    *Error
			}
			if err := json.Unmarshal([]byte(line), &record); err != nil {
				t.Fatalf("%q logs %q: %v", event, line, err)
			}
			if record.Error != nil {
				failed++
			}
			if record.Error != nil && !slices.Contains(refusals, record.Error.Code) ||
				(record.Error == nil) != (record.Rejected == 0) || record.Written != record.Count {
				t.Fatalf("%q logs %s", event, line)
			}
		}
		if answer.Failures == nil && len(records) != 1 || answer.Failures != nil && failed != len(answer.Failures) ||
			answer.Failures == nil && (failed == 1) != (answer.Error != nil) {
			t.Fatalf("%q is answered with %s and logs %s", event, text, &log)
		}
		if shown := string(text) + log.String(); strings.Contains(shown, "goroutine ") || strings.Contains(shown, ".go:") {
			t.Fatalf("%q shows a stack: %s", event, shown)
		}
	})
}

// agreeable is a client of a DynamoDB that takes everything, in this process.
func agreeable() *dynamodb.Client {
	return dynamodb.New(dynamodb.Options{
		Region: "us-east-1",
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "test", SecretAccessKey: "test"}, nil
		}),
		DisableValidateResponseChecksum: true,
		HTTPClient: doer(func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("{}"))}, nil
		}),
	})
}

func bodiesOfCases(f *testing.F) [][]byte {
	var cases []struct {
		Body       string
		BodyBase64 []byte `json:"body_base64"`
	}
	bodies := [][]byte{}
	decodeTable(f, "cases.json", &cases)
	for _, c := range cases {
		bodies = append(bodies, append(c.BodyBase64, c.Body...))
	}
	return bodies
}

func eventsOfScenarios(f *testing.F) [][]byte {
	var scenarios []struct {
		Invocations []struct{ Event json.RawMessage }
	}
	events := [][]byte{}
	decodeTable(f, "scenarios.json", &scenarios)
	for _, scenario := range scenarios {
		for _, invocation := range scenario.Invocations {
			events = append(events, invocation.Event)
		}
	}
	return events
}

func decodeTable(f *testing.F, name string, into any) {
	text, err := os.ReadFile(contracts + name)
	if err == nil {
		err = json.Unmarshal(text, into)
	}
	if err != nil {
		f.Fatal(err)
	}
}
