// Package ingest does the work of one Lambda function: it reads work messages from SQS events or direct
// invocations, writes their items to DynamoDB in the mode that the message asks for, and logs one record per message.
//
// docs/contracts.md states the contracts. The Python function keeps the same ones: contracts/cases.json and
// contracts/scenarios.json hold the cases that both must pass.
package ingest
