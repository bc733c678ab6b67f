package ingest

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
)

// The same in Python, see src/python/ingest/handler.py.
const (
	maxAttempts    = 3
	connectTimeout = 2 * time.Second
	readTimeout    = 5 * time.Second
)

// NewClient builds the DynamoDB client from the environment, with the retries and time limits of the Python function.
func NewClient(ctx context.Context) (*dynamodb.Client, error) {
	// The retry rules that boto3 already has: 25 ms before the first retry at DynamoDB, 1 s when throttled.
	// Without this switch the Go SDK still uses its older ones.
	if err := os.Setenv("AWS_NEW_RETRIES_2026", "true"); err != nil {
		return nil, err
	}
	httpClient := awshttp.NewBuildableClient().
		WithDialerOptions(func(dialer *net.Dialer) { dialer.Timeout = connectTimeout }).
		WithTransportOptions(func(transport *http.Transport) {
			transport.TLSHandshakeTimeout = connectTimeout
			transport.ResponseHeaderTimeout = readTimeout
			transport.MaxIdleConnsPerHost = concurrency
		}).
		WithReadTimeout(0) // the SDK's own would also close connections that are merely idle, and boto3's does not
	settings, err := config.LoadDefaultConfig(ctx,
		config.WithHTTPClient(httpClient),
		config.WithRetryMode(aws.RetryModeStandard),
		config.WithRetryMaxAttempts(maxAttempts),
	)
	if err != nil {
		return nil, fmt.Errorf("load AWS settings: %w", err)
	}
	go keepTimerPending()
	return dynamodb.NewFromConfig(settings, func(options *dynamodb.Options) {
		// All the SDK does about a wrong checksum is to log a warning. It does so too, for every put, about an
		// emulator that sends none.
		options.DisableValidateResponseChecksum = true
		options.HTTPClient = plainBodies{options.HTTPClient}
	}), nil
}

// keepTimerPending saves CPU time: net/http starts a timer of readTimeout for every put, and a timer that is due before
// all others wakes the thread of the Go runtime that waits for the network, only to let it wait anew. While an earlier
// one is pending, no put does so. docs/benchmarks.md tells what it saves.
func keepTimerPending() {
	for {
		time.Sleep(readTimeout / 2)
	}
}

// plainBodies hides WriteTo of request bodies from net/http. smithy-go (1.28.8) closes a body when the head of the answer
// is there, and the WriteTo of a closed body returns io.EOF as an error. On a throttled CPU net/http may only then look
// whether the body has ended: it takes the error for a failed request, closes the connection under the rest of the
// answer, and the SDK sends the put again.
type plainBodies struct{ next aws.HTTPClient }

func (c plainBodies) Do(request *http.Request) (*http.Response, error) {
	if request.Body != nil {
		request.Body = struct{ io.ReadCloser }{request.Body}
	}
	return c.next.Do(request)
}
