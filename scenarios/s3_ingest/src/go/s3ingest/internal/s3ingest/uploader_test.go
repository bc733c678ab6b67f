package s3ingest

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
)

// The whole function is tested with the Python one, in tests/local/test_s3_ingest.py; this is for the race detector.
func TestPartsAtOnceAreCountedWholly(t *testing.T) {
	var lock sync.Mutex
	sent := map[string]int{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		part := r.URL.Query().Get("partNumber")
		lock.Lock()
		sent[r.Method+part]++
		throttled := part != "" && sent[r.Method+part] == 1
		lock.Unlock()
		switch {
		case throttled:
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = fmt.Fprint(w, "<Error><Code>SlowDown</Code></Error>")
		case r.URL.Query().Has("uploads"):
			_, _ = fmt.Fprint(w, "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>")
		case r.Method == http.MethodPost:
			_, _ = fmt.Fprint(w, "<CompleteMultipartUploadResult></CompleteMultipartUploadResult>")
		default:
			w.Header().Set("ETag", `"e"`)
		}
	}))
	defer server.Close()
	for name, value := range map[string]string{
		"AWS_ENDPOINT_URL_S3": server.URL, "AWS_REGION": "eu-west-1",
		"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret",
	} {
		t.Setenv(name, value)
	}
	client, err := NewClient(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	request := &Request{Workload: "batch", ObjectBytes: 12 * mib, MultipartMB: 5, Parallelism: 3, Seed: 1}
	transfer := &Transfer{}
	uploader := &Uploader{Client: client}
	if err := uploader.Upload(context.Background(), request, "a-bucket", "key", transfer); err != nil {
		t.Fatal(err)
	}
	if *transfer.MultipartParts != 3 || transfer.S3Requests != 8 || transfer.SDKRetries != 3 || transfer.Throttles != 3 {
		t.Errorf("%d parts, %d requests, %d retries, %d throttles",
			*transfer.MultipartParts, transfer.S3Requests, transfer.SDKRetries, transfer.Throttles)
	}
	if len(transfer.parts) != 3 {
		t.Errorf("%d times of parts", len(transfer.parts))
	}
}
