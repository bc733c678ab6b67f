package s3ingest

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// The same in Python, see src/python/s3_ingest/handler.py.
const (
	maxAttempts    = 3
	connectTimeout = 2 * time.Second
	readTimeout    = 60 * time.Second
)

// NewClient builds the S3 client from the environment, with the retries and time limits of the Python function.
func NewClient(ctx context.Context) (*s3.Client, error) {
	// The retry rules that boto3 already has; without this switch the Go SDK still uses its older ones.
	if err := os.Setenv("AWS_NEW_RETRIES_2026", "true"); err != nil {
		return nil, err
	}
	httpClient := awshttp.NewBuildableClient().
		WithDialerOptions(func(dialer *net.Dialer) { dialer.Timeout = connectTimeout }).
		WithTransportOptions(func(transport *http.Transport) {
			transport.TLSHandshakeTimeout = connectTimeout
			transport.ResponseHeaderTimeout = readTimeout
			transport.MaxIdleConnsPerHost = mostParallel
		})
	settings, err := config.LoadDefaultConfig(ctx,
		config.WithHTTPClient(httpClient),
		config.WithRetryMode(aws.RetryModeStandard),
		config.WithRetryMaxAttempts(maxAttempts),
	)
	if err != nil {
		return nil, fmt.Errorf("load AWS settings: %w", err)
	}
	_, isEmulator := os.LookupEnv("AWS_ENDPOINT_URL")
	_, isEmulatedS3 := os.LookupEnv("AWS_ENDPOINT_URL_S3")
	return s3.NewFromConfig(settings, func(options *s3.Options) {
		options.UsePathStyle = isEmulator || isEmulatedS3 // an emulator has one host name
		options.ContinueHeaderThresholdBytes = -1         // boto3 asks no leave before it sends bytes either
	}), nil
}
