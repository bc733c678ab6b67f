// Command s3ingest is the Go S3 ingest function: an event in, one object of made-up data out.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/aws/aws-lambda-go/lambda"

	"lambdalab/s3ingest/internal/s3ingest"
)

var loaded = time.Now()

func main() {
	// Before lambda.Start, so that the client is built in the init phase as it is in Python.
	client, err := s3ingest.NewClient(context.Background())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	lambda.Start(&s3ingest.Service{Uploader: &s3ingest.Uploader{Client: client}, Log: os.Stdout, Loaded: loaded})
}
