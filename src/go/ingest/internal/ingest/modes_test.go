package ingest

import (
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// script answers each put as the function says, which may wait; it keeps the numbers of the items.
type script struct {
	answer func(seq string) (status int, body string)
	mutex  sync.Mutex
	seqs   []string
}

const (
	ok     = `{"ConsumedCapacity":{"TableName":"items","CapacityUnits":1.0}}`
	denied = `{"__type":"a.b#AccessDeniedException","message":"no"}`
)

func (s *script) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var put struct {
		Item struct{ Seq struct{ N string } }
	}
	if err := json.NewDecoder(r.Body).Decode(&put); err != nil {
		panic(err)
	}
	s.mutex.Lock()
	s.seqs = append(s.seqs, put.Item.Seq.N)
	s.mutex.Unlock()
	status, body := s.answer(put.Item.Seq.N)
	w.Header().Set("Content-Type", "application/x-amz-json-1.0")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body)
}

// crowd returns a function that returns when `concurrency` callers are inside; most is how many ever were.
func crowd() (enter func(), most func() int) {
	var mutex sync.Mutex
	inside, largest, open := 0, 0, make(chan struct{})
	enter = func() {
		mutex.Lock()
		inside++
		largest = max(largest, inside)
		gate := open
		if inside == concurrency {
			inside, open = 0, make(chan struct{})
			close(gate)
		}
		mutex.Unlock()
		<-gate
	}
	return enter, func() int { mutex.Lock(); defer mutex.Unlock(); return largest }
}

func recordOf(t *testing.T, text string) (found struct {
	Written     int
	ConsumedWRU float64   `json:"consumed_wru"`
	PutMS       quantiles `json:"put_ms"`
}) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &found); err != nil {
		t.Fatal(err)
	}
	return found
}

func TestAsManyPutsAreUnderWayAsDocumented(t *testing.T) {
	enter, most := crowd()
	dynamodb := &script{answer: func(string) (int, string) { enter(); return 200, ok }}
	service, _ := newService(t, dynamodb)
	for range 2 {
		answer := recordOf(t, invoke(t, service, []byte(`{"batch_id":"b","size_bytes":1,"count":32,"mode":"concurrent"}`)))
		if answer.Written != 32 || answer.ConsumedWRU != 32 || answer.PutMS.N != 32 {
			t.Errorf("got %v, want 32 of each", answer)
		}
	}
	slices.Sort(dynamodb.seqs)
	if got := slices.Compact(slices.Clone(dynamodb.seqs)); len(got) != 32 || len(dynamodb.seqs) != 64 || most() != concurrency {
		t.Errorf("%d puts of %d items, %d at once", len(dynamodb.seqs), len(got), most())
	}
}

func TestNeverMorePutsThanDocumented(t *testing.T) {
	var mutex sync.Mutex
	inside, largest := 0, 0
	dynamodb := &script{answer: func(string) (int, string) {
		mutex.Lock()
		inside++
		largest = max(largest, inside)
		mutex.Unlock()
		time.Sleep(time.Millisecond)
		mutex.Lock()
		inside--
		mutex.Unlock()
		return 200, ok
	}}
	service, _ := newService(t, dynamodb)
	invoke(t, service, []byte(`{"batch_id":"b","size_bytes":1,"count":200,"mode":"concurrent"}`))
	if largest > concurrency || len(dynamodb.seqs) != 200 {
		t.Errorf("%d puts, %d at once", len(dynamodb.seqs), largest)
	}
}

func TestAfterTheFirstErrorNoPutBeginsAndThoseUnderWayAreAwaited(t *testing.T) {
	enter, _ := crowd()
	refused := make(chan struct{})
	dynamodb := &script{answer: func(seq string) (int, string) {
		if len(seq) == 1 && seq < "8" {
			enter()
		}
		if seq == "3" {
			close(refused)
			return 400, denied
		}
		<-refused
		return 200, ok
	}}
	service, log := newService(t, dynamodb)
	got := invoke(t, service, []byte(`{"batch_id":"b","size_bytes":1,"count":4096,"mode":"concurrent"}`))
	if !strings.Contains(got, `"item 3 could not be written: AccessDeniedException"`) {
		t.Errorf("got %s", got)
	}
	record, puts := recordOf(t, log.String()), len(dynamodb.seqs)
	if puts < concurrency || puts >= 4096 || record.Written != puts-1 || record.PutMS.N != puts-1 {
		t.Errorf("%d puts, record %v", puts, record)
	}
}

func TestWhenEveryPutFailsEachGoroutineStopsAtItsFirst(t *testing.T) {
	dynamodb := &script{answer: func(string) (int, string) { return 400, denied }}
	service, _ := newService(t, dynamodb)
	got := invoke(t, service, []byte(`{"batch_id":"b","count":100,"mode":"concurrent"}`))
	if !strings.Contains(got, `could not be written: AccessDeniedException`) || len(dynamodb.seqs) > concurrency {
		t.Errorf("%d puts, got %s", len(dynamodb.seqs), got)
	}
}

func TestPanicOfAGoroutineShowsOnlyItsType(t *testing.T) {
	var log strings.Builder
	service := &Service{Log: &log} // without a client every put panics
	got := invoke(t, service, []byte(`{"batch_id":"b","mode":"concurrent"}`))
	if want := `{"error":{"code":"InternalError","message":"internal error"}}`; got != want {
		t.Errorf("got %s", got)
	}
	if !strings.Contains(log.String(), `"error_type":"runtime.errorString"`) || strings.Contains(log.String(), "goroutine") {
		t.Errorf("log: %s", log.String())
	}
}

func TestTheLargestCallIsWithin16MB(t *testing.T) {
	var size int64
	service, _ := newService(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		size, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, "{}")
	}))
	got := invoke(t, service, []byte(`{"batch_id":"`+strings.Repeat("b", 256)+`","size_bytes":400000,"count":25,"mode":"batch"}`))
	if size < 10_000_000 || size >= 16_000_000 || !strings.Contains(got, `"written":25,`) {
		t.Errorf("%d bytes: %s", size, got)
	}
}

func TestBackoffDoublesUpToItsBound(t *testing.T) {
	for tries := range 40 {
		bound := min(firstBackoff<<min(tries, 10), longestBackoff)
		longest, shortest := time.Duration(0), bound
		for range 1000 {
			delay := backoff(tries)
			longest, shortest = max(longest, delay), min(shortest, delay)
		}
		if longest > bound || longest < bound*9/10 || shortest < 0 || shortest > bound/10 {
			t.Errorf("try %d: %v to %v, want 0 to %v", tries, shortest, longest, bound)
		}
	}
}
