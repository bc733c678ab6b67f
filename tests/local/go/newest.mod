// The newest aws-lambda-go on the Go module proxy, looked up 2026-11-21.
module lambdalab/under-test

go 1.26

require github.com/aws/aws-lambda-go v1.55.1
