// Command ingest is the Go ingest function: an SQS event or a direct message in, DynamoDB items out.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/aws/aws-lambda-go/lambda"

	"lambdalab/ingest/internal/ingest"
)

func main() {
	table := os.Getenv("TABLE_NAME")
	if table == "" {
		exit("TABLE_NAME is not set: it must name the DynamoDB table to write to")
	}
	// Before lambda.Start, so that the client is built in the init phase as it is in Python.
	client, err := ingest.NewClient(context.Background())
	if err != nil {
		exit(err.Error())
	}
	lambda.Start(&ingest.Service{Writer: ingest.Writer{Client: client, Table: table}, Log: os.Stdout})
}

func exit(reason string) {
	fmt.Fprintln(os.Stderr, reason)
	os.Exit(1)
}
