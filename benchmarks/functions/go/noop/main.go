// Package main does nothing, or sleeps, and says how long that took as the function sees it.
package main

import (
	"time"

	"github.com/aws/aws-lambda-go/lambda"
)

type event struct {
	SleepMs float64 `json:"sleep_ms"`
}

type answer struct {
	OwnMs float64 `json:"own_ms"`
}

// handle sleeps as long as the event says, which is not at all for an event that says nothing.
func handle(e event) (answer, error) {
	began := time.Now()
	if e.SleepMs > 0 {
		time.Sleep(time.Duration(e.SleepMs * float64(time.Millisecond)))
	}
	return answer{OwnMs: float64(time.Since(began).Nanoseconds()) / 1e6}, nil
}

func main() { lambda.Start(handle) }
