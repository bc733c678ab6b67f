// Package s3ingest does the work of one Lambda function: it makes an object of seeded data, writes it to S3 by one call
// or in parts, and logs one record per invocation.
//
// The scenario's README.md states what the function promises. The Python function keeps the same promises:
// its tests/test_s3_ingest.py holds both to them.
package s3ingest
