package ingest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/middleware"
)

const (
	lang  = "go"
	isNew = "attribute_not_exists(pk) AND attribute_not_exists(sk)"

	noCode = "UnknownError" // what the SDK puts in the place of a code that the answer lacks
)

// Batch is what became of the items of one message so far. Absent is what was not measured or does not apply.
type Batch struct {
	Written     int        `json:"written"`
	Duplicates  *int       `json:"duplicates,omitempty"`
	ElapsedMS   decimal    `json:"batch_elapsed_ms"`
	PutMS       *quantiles `json:"put_ms,omitempty"`
	ConsumedWRU *decimal   `json:"consumed_wru,omitempty"`
	SDKRetries  int        `json:"sdk_retries"`

	puts []time.Duration
}

type quantiles struct {
	N   int     `json:"n"`
	P50 decimal `json:"p50"`
	P95 decimal `json:"p95"`
	Max decimal `json:"max"`
}

// Writer writes the items of a message to one table.
type Writer struct {
	Client *dynamodb.Client
	Table  string
}

// Write writes every item and notes the outcome in batch; the first error ends it.
func (w *Writer) Write(ctx context.Context, message Message, batch *Batch, coldStart bool) error {
	started := time.Now()
	defer func() {
		batch.ElapsedMS = milliseconds(time.Since(started))
		batch.PutMS = quantilesOf(batch.puts)
	}()
	payload := strings.Repeat("x", message.SizeBytes)
	item := func(seq int) map[string]types.AttributeValue {
		return map[string]types.AttributeValue{
			"pk":         text("batch_id#" + message.BatchID),
			"sk":         text("seq#" + strconv.Itoa(seq)),
			"lang":       text(lang),
			"label":      text(message.Label),
			"size_bytes": number(int64(message.SizeBytes)),
			"seq":        number(int64(seq)),
			"t_start_ms": number(time.Now().UnixMilli()),
			"payload":    text(payload),
			"cold_start": &types.AttributeValueMemberBOOL{Value: coldStart},
		}
	}
	if message.Mode == "batch" {
		return w.putBatches(ctx, item, message.Count, batch) // no condition is possible, so no duplicates are known
	}
	batch.Duplicates = new(int)
	if message.Mode == "concurrent" {
		return w.putAtOnce(ctx, item, message.Count, batch)
	}
	for seq := range message.Count {
		if err := w.put(ctx, seq, item(seq), batch); err != nil {
			return err
		}
	}
	return nil
}

// put writes one item unless it is there.
func (w *Writer) put(ctx context.Context, seq int, item map[string]types.AttributeValue, batch *Batch) error {
	started := time.Now()
	answer, err := w.Client.PutItem(ctx, &dynamodb.PutItemInput{
		TableName:              &w.Table,
		Item:                   item,
		ConditionExpression:    aws.String(isNew),
		ReturnConsumedCapacity: types.ReturnConsumedCapacityTotal,
	}, countRetries(&batch.SDKRetries))
	var exists *types.ConditionalCheckFailedException
	switch {
	case err == nil:
		batch.Written++
		if answer.ConsumedCapacity != nil {
			batch.addUnits((*decimal)(answer.ConsumedCapacity.CapacityUnits))
		}
	case errors.As(err, &exists):
		*batch.Duplicates++
	default:
		return writeFailed(seq, reason(err))
	}
	batch.puts = append(batch.puts, time.Since(started))
	return nil
}

// addUnits adds capacity that DynamoDB returned; nil is none.
func (b *Batch) addUnits(units *decimal) {
	if units == nil {
		return
	}
	if b.ConsumedWRU == nil {
		b.ConsumedWRU = new(decimal)
	}
	*b.ConsumedWRU += *units
}

// countRetries adds the retries of one call to total. It reads them inside the SDK's stack, because the metadata of a
// call that failed does not reach the caller.
func countRetries(total *int) func(*dynamodb.Options) {
	count := func(ctx context.Context, in middleware.InitializeInput, next middleware.InitializeHandler) (
		middleware.InitializeOutput, middleware.Metadata, error,
	) {
		out, metadata, err := next.HandleInitialize(ctx, in)
		if attempts, ok := retry.GetAttemptResults(metadata); ok {
			*total += len(attempts.Results) - 1
		}
		return out, metadata, err
	}
	return dynamodb.WithAPIOptions(func(stack *middleware.Stack) error {
		return stack.Initialize.Add(middleware.InitializeMiddlewareFunc("CountRetries", count), middleware.Before)
	})
}

// reason is what of an SDK's error may be shown.
func reason(err error) string {
	var refusal smithy.APIError
	if errors.As(err, &refusal) && refusal.ErrorCode() != noCode {
		return printable(refusal.ErrorCode())
	}
	return "no valid answer from DynamoDB"
}

func writeFailed(seq int, reason string) error {
	return &Error{Code: "WriteFailed", Message: fmt.Sprintf("item %d could not be written: %s", seq, reason)}
}

// quantilesOf takes nearest-rank quantiles: every value shown was measured. It is nil without a value.
func quantilesOf(puts []time.Duration) *quantiles {
	n := len(puts)
	if n == 0 {
		return nil
	}
	ranked := slices.Sorted(slices.Values(puts))
	return &quantiles{
		N:   n,
		P50: milliseconds(ranked[(50*n+99)/100-1]),
		P95: milliseconds(ranked[(95*n+99)/100-1]),
		Max: milliseconds(ranked[n-1]),
	}
}

func text(value string) types.AttributeValue {
	return &types.AttributeValueMemberS{Value: value}
}

func number(value int64) types.AttributeValue {
	return &types.AttributeValueMemberN{Value: strconv.FormatInt(value, 10)}
}
