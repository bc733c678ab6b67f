// Command ingest is the Go ingest function with faults to order: before each batch it asks the suite what shall go wrong.
// The suite puts this file in the place of the shipped main.go, in its own copy of the project.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"

	"lambdalab/ingest/internal/ingest"
)

const (
	piece      = 8 << 20
	mostPieces = 128 // a memory limit that does not hold must not cost the machine
)

type order struct {
	Kind   string `json:"kind"`
	After  int    `json:"after"`
	Answer string `json:"answer"`
}

type batch struct {
	Records []json.RawMessage `json:"Records"`
}

// faulty does what the shipped function does, or what was ordered, after as many records as were ordered.
type faulty struct{ shipped *ingest.Service }

func (f faulty) Invoke(ctx context.Context, event []byte) ([]byte, error) {
	ordered := ask(ctx, event)
	if ordered == nil {
		return f.shipped.Invoke(ctx, event)
	}
	if ordered.After > 0 {
		var first batch
		must(json.Unmarshal(event, &first))
		first.Records = first.Records[:ordered.After]
		part, err := json.Marshal(first)
		must(err)
		_, err = f.shipped.Invoke(ctx, part)
		must(err)
	}
	switch ordered.Kind {
	case "timeout":
		time.Sleep(time.Hour)
	case "memory":
		var held [][]byte
		for len(held) < mostPieces {
			held = append(held, bytes.Repeat([]byte{1}, piece))
		}
		panic(fmt.Sprint(len(held), " pieces of memory and still alive"))
	}
	return []byte(ordered.Answer), nil
}

func ask(ctx context.Context, event []byte) *order {
	request, err := http.NewRequestWithContext(
		ctx, http.MethodPost, os.Getenv("AWS_ENDPOINT_URL")+"/_chaos/go", bytes.NewReader(event))
	must(err)
	invocation, _ := lambdacontext.FromContext(ctx)
	request.Header.Set("X-Request-Id", invocation.AwsRequestID)
	request.Header.Set("X-Pid", strconv.Itoa(os.Getpid()))
	answer, err := http.DefaultClient.Do(request)
	must(err)
	defer answer.Body.Close()
	var ordered *order
	must(json.NewDecoder(answer.Body).Decode(&ordered))
	return ordered
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	client, err := ingest.NewClient(context.Background())
	must(err)
	writer := ingest.Writer{Client: client, Table: os.Getenv("TABLE_NAME")}
	lambda.Start(faulty{&ingest.Service{Writer: writer, Log: os.Stdout}})
}
