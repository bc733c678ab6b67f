// Package main is a fixed amount of computing, in Go.
package main

import (
	"sync"
	"syscall"

	"github.com/aws/aws-lambda-go/lambda"
)

type event struct {
	Iterations int `json:"iterations"`
	Workers    int `json:"workers"`
}

type answer struct {
	Result uint64  `json:"result"`
	CPUMs  float64 `json:"cpu_ms"`
}

// handle shifts and mixes a number as often as the event says, in each of its workers, and tells the CPU time that took.
func handle(e event) (answer, error) {
	before, err := cpuMs()
	if err != nil {
		return answer{}, err
	}
	results := make([]uint64, e.Workers)
	var workers sync.WaitGroup
	for i := range results {
		workers.Go(func() { results[i] = mix(e.Iterations) })
	}
	workers.Wait()
	after, err := cpuMs()
	return answer{Result: results[0], CPUMs: after - before}, err
}

// mix returns its result so that a compiler cannot leave it out.
func mix(iterations int) uint64 {
	x := uint64(88172645463325252)
	for range iterations {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
	}
	return x
}

func cpuMs() (float64, error) {
	var used syscall.Rusage
	err := syscall.Getrusage(syscall.RUSAGE_SELF, &used)
	return float64(used.Utime.Nano()+used.Stime.Nano()) / 1e6, err
}

func main() { lambda.Start(handle) }
