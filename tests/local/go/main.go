// Package main is what a Go function may do, good and bad; the event names it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"
)

type event struct {
	Do         string  `json:"do"`
	Seconds    float64 `json:"s"`
	Code       int     `json:"code"`
	Bytes      int     `json:"bytes"`
	MB         int     `json:"mb"`
	Text       string  `json:"text"`
	Iterations int     `json:"iterations"`
	Records    []struct {
		Body       string
		Attributes map[string]string
	}
}

var kept [][]byte

func handle(ctx context.Context, e event) (any, error) {
	if len(e.Records) > 0 { // answers the first time with what a message says, as it is
		answer := map[string]string{"1": strings.TrimPrefix(e.Records[0].Body, "raw")}[e.Records[0].Attributes["ApproximateReceiveCount"]]
		return strings.NewReader(answer), nil
	}
	switch e.Do {
	case "facts":
		deadline, _ := ctx.Deadline()
		call, _ := lambdacontext.FromContext(ctx)
		return map[string]any{
			"variables":    os.Environ(),
			"remaining_ms": time.Until(deadline).Milliseconds(),
			"arn":          call.InvokedFunctionArn,
		}, nil
	case "fail":
		return nil, errors.New("nein")
	case "panic":
		panic("ohne Grund")
	case "sleep":
		time.Sleep(time.Duration(e.Seconds * float64(time.Second)))
	case "leave":
		os.Exit(e.Code)
	case "large":
		return strings.Repeat("x", e.Bytes), nil
	case "measure":
		return len(e.Text), nil
	case "allocate":
		block := make([]byte, e.MB<<20)
		for i := range block {
			block[i] = byte(i)
		}
		kept = append(kept, block)
		return len(block), nil
	case "stream":
		return io.MultiReader(strings.NewReader(`"the first half`), broken{}), nil
	case "stream_whole":
		return io.MultiReader(strings.NewReader(`"the first half`), strings.NewReader(` and the second"`)), nil
	case "stream_waits":
		return io.MultiReader(strings.NewReader("one"), waiting(e.Text), strings.NewReader("two")), nil
	case "stream_leaves":
		return io.MultiReader(strings.NewReader("one"), leaving(e.Code)), nil
	case "stream_large":
		return io.MultiReader(io.LimitReader(endless{}, int64(e.Bytes))), nil
	case "work":
		return work(e.Iterations), nil
	case "open_files":
		var found []*os.File
		for {
			file, err := os.Open("/dev/null")
			if err != nil {
				return map[string]any{"highest": found[len(found)-1].Fd(), "error": err.Error()}, nil
			}
			found = append(found, file)
		}
	case "write":
		fmt.Print("without an end")
	}
	return "done", nil
}

// work is a fixed amount of computing that a compiler cannot leave out.
func work(iterations int) uint64 {
	x := uint64(88172645463325252)
	for range iterations {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
	}
	return x
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("broke in the middle") }

// waiting ends when a file of its name exists.
type waiting string

func (w waiting) Read([]byte) (int, error) {
	for {
		if _, err := os.Stat(string(w)); err == nil {
			return 0, io.EOF
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// leaving ends the process with a code.
type leaving int

func (l leaving) Read([]byte) (int, error) {
	time.Sleep(50 * time.Millisecond)
	os.Exit(int(l))
	return 0, nil
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

func main() {
	if os.Getenv("PANIC_IN_INIT") != "" {
		panic("before the first next")
	}
	lambda.Start(handle)
}
