// Package main is a fixed amount of computing, in Go.
package main

import "github.com/aws/aws-lambda-go/lambda"

type event struct {
	Iterations int `json:"iterations"`
}

// handle shifts and mixes a number as often as the event says; the result keeps a compiler from leaving it out.
func handle(e event) (uint64, error) {
	x := uint64(88172645463325252)
	for range e.Iterations {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
	}
	return x, nil
}

func main() { lambda.Start(handle) }
