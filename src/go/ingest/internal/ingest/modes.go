package ingest

import (
	"context"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// The same in Python, see src/python/ingest/writer.py.
const (
	concurrency    = 8  // puts under way at once
	batchItems     = 25 // DynamoDB's limit; its other one, 16 MB, is out of reach at 400,000 bytes an item
	firstBackoff   = 50 * time.Millisecond
	longestBackoff = 5 * time.Second
	reserve        = time.Second // kept for one more call and the record
)

type makeItem func(seq int) map[string]types.AttributeValue

// part is what one goroutine did: the item it failed at, with the error or what it panicked with.
type part struct {
	batch  Batch
	failed int
	err    error
	fault  any
}

// putAtOnce puts from several goroutines. After the first error none begins another put; those under way are awaited.
func (w *Writer) putAtOnce(ctx context.Context, item makeItem, count int, batch *Batch) error {
	var next atomic.Int64
	var stop atomic.Bool
	var group sync.WaitGroup
	parts := make([]part, min(concurrency, count))
	for i := range parts {
		parts[i].batch.Duplicates = new(int)
		group.Add(1)
		go func(p *part) {
			defer group.Done()
			defer func() {
				if p.fault = recover(); p.fault != nil {
					stop.Store(true)
				}
			}()
			for seq := int(next.Add(1)) - 1; seq < count && !stop.Load(); seq = int(next.Add(1)) - 1 {
				if p.err = w.put(ctx, seq, item(seq), &p.batch); p.err != nil {
					p.failed = seq
					stop.Store(true)
				}
			}
		}(&parts[i])
	}
	group.Wait()
	var first part
	var fault any
	for i := range parts {
		p := &parts[i]
		batch.add(&p.batch)
		if p.err != nil && (first.err == nil || p.failed < first.failed) {
			first = *p
		}
		if p.fault != nil {
			fault = p.fault
		}
	}
	if fault != nil {
		panic(fault) // in the invocation's own goroutine, where it is answered
	}
	return first.err
}

func (b *Batch) add(part *Batch) {
	b.Written += part.Written
	*b.Duplicates += *part.Duplicates
	b.puts = append(b.puts, part.puts...)
	b.addUnits(part.ConsumedWRU)
	b.SDKRetries += part.SDKRetries
}

// putBatches writes 25 items a call. Those that DynamoDB leaves unprocessed are sent again, later each time.
func (w *Writer) putBatches(ctx context.Context, item makeItem, count int, batch *Batch) error {
	for first := 0; first < count; first += batchItems {
		var requests []types.WriteRequest
		for seq := first; seq < min(first+batchItems, count); seq++ {
			requests = append(requests, types.WriteRequest{PutRequest: &types.PutRequest{Item: item(seq)}})
		}
		unprocessed, err := w.putBatch(ctx, requests, batch)
		for tries := 0; err == nil && len(unprocessed) > 0; tries++ {
			delay := backoff(tries)
			if deadline, ok := ctx.Deadline(); ok && time.Until(deadline)-delay <= reserve {
				return writeFailed(firstSeq(unprocessed), "unprocessed until the time was up")
			}
			time.Sleep(delay)
			unprocessed, err = w.putBatch(ctx, unprocessed, batch)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// putBatch puts up to 25 items in one call and returns what DynamoDB left unprocessed.
func (w *Writer) putBatch(ctx context.Context, requests []types.WriteRequest, batch *Batch) ([]types.WriteRequest, error) {
	started := time.Now()
	answer, err := w.Client.BatchWriteItem(ctx, &dynamodb.BatchWriteItemInput{
		RequestItems:           map[string][]types.WriteRequest{w.Table: requests},
		ReturnConsumedCapacity: types.ReturnConsumedCapacityTotal,
	}, countRetries(&batch.SDKRetries))
	if err != nil {
		return nil, writeFailed(firstSeq(requests), reason(err))
	}
	batch.puts = append(batch.puts, time.Since(started))
	unprocessed := answer.UnprocessedItems[w.Table]
	batch.Written += len(requests) - len(unprocessed)
	for _, capacity := range answer.ConsumedCapacity {
		batch.addUnits((*decimal)(capacity.CapacityUnits))
	}
	return unprocessed, nil
}

// backoff draws the wait before unprocessed items are sent again: exponential, with full jitter.
func backoff(tries int) time.Duration {
	longest := longestBackoff
	if tries < 7 { // the doubling ends before it overflows
		longest = min(longest, firstBackoff<<tries)
	}
	return rand.N(longest + 1)
}

func firstSeq(requests []types.WriteRequest) int {
	first := -1
	for _, request := range requests {
		seq, err := strconv.Atoi(request.PutRequest.Item["seq"].(*types.AttributeValueMemberN).Value)
		if err == nil && (first < 0 || seq < first) {
			first = seq
		}
	}
	return first
}
