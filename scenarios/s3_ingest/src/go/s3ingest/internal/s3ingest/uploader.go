package s3ingest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/middleware"
)

// The same in Python, see src/python/s3_ingest/uploader.py.
const (
	mostParallel = 16
	reserve      = 3 * time.Second // kept for aborting the upload and for the record

	noCode = "UnknownError" // what the SDK puts in the place of a code that the answer lacks
)

var throttles = []string{
	"SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequestsException",
}

// Transfer is what was done for one object so far. Absent is what is not there; without an object nothing is counted.
type Transfer struct {
	LatencyMS       decimal    `json:"latency_ms"`
	GenerateMS      decimal    `json:"generate_ms"`
	EventsGenerated *int       `json:"events_generated,omitempty"`
	ObjectBytes     *int64     `json:"object_bytes,omitempty"`
	MultipartParts  *int       `json:"multipart_parts,omitempty"`
	PartMS          *quantiles `json:"part_ms,omitempty"`
	S3Requests      int        `json:"s3_requests"`
	SDKRetries      int        `json:"sdk_retries"`
	Throttles       int        `json:"throttles"`
	UploadLeft      *bool      `json:"upload_left,omitempty"`

	generate, upload time.Duration
	parts            []time.Duration
	lock             sync.Mutex
}

type quantiles struct {
	N   int     `json:"n"`
	P50 decimal `json:"p50"`
	P95 decimal `json:"p95"`
	Max decimal `json:"max"`
}

// Uploader writes objects to S3, one at a time.
type Uploader struct {
	Client *s3.Client

	buffers [][]byte // one for each part under way; kept, so that the garbage collector never owes the old ones
}

type target struct{ bucket, key string }

// Upload generates and writes one object, noting in transfer what was done also when it fails.
func (u *Uploader) Upload(ctx context.Context, request *Request, bucket, key string, transfer *Transfer) error {
	defer func() {
		transfer.LatencyMS = milliseconds(transfer.upload)
		transfer.GenerateMS = milliseconds(transfer.generate)
		transfer.PartMS = quantilesOf(transfer.parts)
	}()
	to := target{bucket, key}
	if request.Workload == "events" {
		return u.put(ctx, request, to, transfer)
	}
	return u.uploadParts(ctx, request, to, transfer)
}

func (u *Uploader) put(ctx context.Context, request *Request, to target, transfer *Transfer) error {
	var body []byte
	timed(&transfer.generate, func() { body = events(request.Seed, request.BatchEvents, request.EventBytes) })
	var err error
	timed(&transfer.upload, func() {
		_, err = u.Client.PutObject(ctx, &s3.PutObjectInput{
			Bucket:            &to.bucket,
			Key:               &to.key,
			Body:              bytes.NewReader(body),
			ContentType:       aws.String("application/json"),
			ChecksumAlgorithm: types.ChecksumAlgorithmCrc32,
		}, transfer.count)
	})
	if err != nil {
		return uploadFailed("the object could not be put", err)
	}
	transfer.written(int64(len(body)), 0, request.BatchEvents)
	return nil
}

// uploadParts takes turns: it generates as many parts as may be under way, then uploads them; so neither disturbs the
// other.
func (u *Uploader) uploadParts(ctx context.Context, request *Request, to target, transfer *Transfer) error {
	var begun *s3.CreateMultipartUploadOutput
	var err error
	timed(&transfer.upload, func() {
		begun, err = u.Client.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{
			Bucket:            &to.bucket,
			Key:               &to.key,
			ContentType:       aws.String("application/octet-stream"),
			ChecksumAlgorithm: types.ChecksumAlgorithmCrc32,
		}, transfer.count)
	})
	if err != nil {
		return uploadFailed("the multipart upload could not be begun", err)
	}
	whole := false
	defer func() { // also after a panic, which goes on to where it is answered
		if !whole {
			left := !u.abort(ctx, to, begun.UploadId, transfer)
			transfer.UploadLeft = &left
		}
	}()
	parts, err := u.uploadRounds(ctx, request, to, begun.UploadId, transfer)
	if err != nil {
		return err
	}
	timed(&transfer.upload, func() {
		_, err = u.Client.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
			Bucket:          &to.bucket,
			Key:             &to.key,
			UploadId:        begun.UploadId,
			MultipartUpload: &types.CompletedMultipartUpload{Parts: parts},
		}, transfer.count)
	})
	if err != nil {
		return uploadFailed("the multipart upload could not be completed", err)
	}
	whole = true
	transfer.written(request.ObjectBytes, len(parts), 0)
	return nil
}

func (u *Uploader) uploadRounds(
	ctx context.Context, request *Request, to target, uploadID *string, transfer *Transfer,
) ([]types.CompletedPart, error) {
	partBytes := int64(request.MultipartMB) * mib
	var done []types.CompletedPart
	var longest time.Duration
	for start := int64(0); start < request.ObjectBytes; {
		if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < reserve+longest {
			what := fmt.Sprintf("part %d could not be uploaded: the time was up", len(done)+1)
			return nil, &Error{Code: "OutOfTime", Message: what}
		}
		began := time.Now()
		var bodies [][]byte
		timed(&transfer.generate, func() {
			for len(bodies) < request.Parallelism && start < request.ObjectBytes {
				body := u.buffer(len(bodies), partBytes)[:min(partBytes, request.ObjectBytes-start)]
				fillPart(body, request.Seed, start)
				bodies = append(bodies, body)
				start += int64(len(body))
			}
		})
		var err error
		timed(&transfer.upload, func() { done, err = u.uploadAtOnce(ctx, to, uploadID, done, bodies, transfer) })
		if err != nil {
			return nil, err
		}
		longest = max(longest, time.Since(began))
	}
	return done, nil
}

// buffer returns the memory of one of the parts under way.
func (u *Uploader) buffer(i int, size int64) []byte {
	if i == len(u.buffers) {
		u.buffers = append(u.buffers, nil)
	}
	if int64(len(u.buffers[i])) != size {
		u.buffers[i] = nil // first, so that both are never there
		u.buffers[i] = make([]byte, size)
	}
	return u.buffers[i]
}

// uploadAtOnce uploads parts side by side and adds them to done. All are awaited, also after a failure: an abort would
// not stop one under way.
func (u *Uploader) uploadAtOnce(
	ctx context.Context, to target, uploadID *string, done []types.CompletedPart, bodies [][]byte, transfer *Transfer,
) ([]types.CompletedPart, error) {
	first := len(done)
	done = append(done, make([]types.CompletedPart, len(bodies))...)
	failures := make([]error, len(bodies))
	var group sync.WaitGroup
	for i, body := range bodies {
		group.Add(1)
		go func() {
			defer group.Done()
			defer func() {
				if fault := recover(); fault != nil {
					failures[i] = fmt.Errorf("%T", fault)
				}
			}()
			done[first+i], failures[i] = u.uploadPart(ctx, to, uploadID, first+i+1, body, transfer)
		}()
	}
	group.Wait()
	for _, failure := range failures {
		if failure != nil {
			return nil, failure
		}
	}
	return done, nil
}

func (u *Uploader) uploadPart(
	ctx context.Context, to target, uploadID *string, number int, body []byte, transfer *Transfer,
) (types.CompletedPart, error) {
	started := time.Now()
	answer, err := u.Client.UploadPart(ctx, &s3.UploadPartInput{
		Bucket:            &to.bucket,
		Key:               &to.key,
		UploadId:          uploadID,
		PartNumber:        aws.Int32(int32(number)),
		Body:              bytes.NewReader(body),
		ChecksumAlgorithm: types.ChecksumAlgorithmCrc32,
	}, transfer.count)
	if err != nil {
		return types.CompletedPart{}, uploadFailed(fmt.Sprintf("part %d could not be uploaded", number), err)
	}
	taken := time.Since(started)
	transfer.lock.Lock()
	transfer.parts = append(transfer.parts, taken)
	transfer.lock.Unlock()
	return types.CompletedPart{
		PartNumber: aws.Int32(int32(number)), ETag: answer.ETag, ChecksumCRC32: answer.ChecksumCRC32,
	}, nil
}

// abort ends an upload, so that its parts are not billed; it reports whether nothing of it is left.
func (u *Uploader) abort(ctx context.Context, to target, uploadID *string, transfer *Transfer) bool {
	_, err := u.Client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{
		Bucket: &to.bucket, Key: &to.key, UploadId: uploadID,
	}, transfer.count)
	var refusal smithy.APIError
	return err == nil || errors.As(err, &refusal) && refusal.ErrorCode() == "NoSuchUpload"
}

func (t *Transfer) written(objectBytes int64, parts, events int) {
	t.ObjectBytes, t.MultipartParts, t.EventsGenerated = &objectBytes, &parts, &events
}

// count adds the attempts of one call. It reads them inside the SDK's stack, because the metadata of a call that failed
// does not reach the caller.
func (t *Transfer) count(options *s3.Options) {
	count := func(ctx context.Context, in middleware.InitializeInput, next middleware.InitializeHandler) (
		middleware.InitializeOutput, middleware.Metadata, error,
	) {
		out, metadata, err := next.HandleInitialize(ctx, in)
		if attempts, ok := retry.GetAttemptResults(metadata); ok {
			t.lock.Lock()
			defer t.lock.Unlock()
			t.S3Requests += len(attempts.Results)
			t.SDKRetries += len(attempts.Results) - 1
			for _, attempt := range attempts.Results {
				var refusal smithy.APIError
				if errors.As(attempt.Err, &refusal) && slices.Contains(throttles, refusal.ErrorCode()) {
					t.Throttles++
				}
			}
		}
		return out, metadata, err
	}
	s3.WithAPIOptions(func(stack *middleware.Stack) error {
		return stack.Initialize.Add(middleware.InitializeMiddlewareFunc("CountAttempts", count), middleware.Before)
	})(options)
}

// uploadFailed is an error of the SDK with what of it may be shown.
func uploadFailed(what string, err error) error {
	reason := "no valid answer from S3"
	var refusal smithy.APIError
	if errors.As(err, &refusal) && refusal.ErrorCode() != noCode {
		reason = printable(refusal.ErrorCode())
	}
	return &Error{Code: "UploadFailed", Message: what + ": " + reason}
}

func timed(total *time.Duration, work func()) {
	started := time.Now()
	defer func() { *total += time.Since(started) }()
	work()
}

// quantilesOf takes nearest-rank quantiles: every value shown was measured. It is nil without a value.
func quantilesOf(parts []time.Duration) *quantiles {
	n := len(parts)
	if n == 0 {
		return nil
	}
	ranked := slices.Sorted(slices.Values(parts))
	return &quantiles{
		N:   n,
		P50: milliseconds(ranked[(50*n+99)/100-1]),
		P95: milliseconds(ranked[(95*n+99)/100-1]),
		Max: milliseconds(ranked[n-1]),
	}
}
