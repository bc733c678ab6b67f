// Package main puts the items of the ingest function, one after another, with a plain client of the SDK and nothing else.
package main

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

type event struct {
	BatchID   string `json:"batch_id"`
	SizeBytes int    `json:"size_bytes"`
	Count     int    `json:"count"`
}

func main() {
	settings, err := config.LoadDefaultConfig(context.Background())
	if err != nil {
		panic(err)
	}
	client := dynamodb.NewFromConfig(settings, func(options *dynamodb.Options) {
		options.DisableValidateResponseChecksum = true // else a log line for every answer of an emulator, which has none
	})
	lambda.Start(func(ctx context.Context, e event) error {
		payload := strings.Repeat("x", e.SizeBytes)
		for seq := range e.Count {
			_, err := client.PutItem(ctx, &dynamodb.PutItemInput{
				TableName: aws.String(os.Getenv("TABLE_NAME")),
				Item: map[string]types.AttributeValue{
					"pk":         &types.AttributeValueMemberS{Value: "batch_id#" + e.BatchID},
					"sk":         &types.AttributeValueMemberS{Value: "seq#" + strconv.Itoa(seq)},
					"lang":       &types.AttributeValueMemberS{Value: "go"},
					"label":      &types.AttributeValueMemberS{Value: "PLAIN"},
					"size_bytes": &types.AttributeValueMemberN{Value: strconv.Itoa(e.SizeBytes)},
					"seq":        &types.AttributeValueMemberN{Value: strconv.Itoa(seq)},
					"t_start_ms": &types.AttributeValueMemberN{Value: strconv.FormatInt(time.Now().UnixMilli(), 10)},
					"payload":    &types.AttributeValueMemberS{Value: payload},
					"cold_start": &types.AttributeValueMemberBOOL{Value: false},
				},
				ConditionExpression:    aws.String("attribute_not_exists(pk) AND attribute_not_exists(sk)"),
				ReturnConsumedCapacity: types.ReturnConsumedCapacityTotal,
			})
			// On a throttled CPU the SDK may send a put twice (see plainBodies in src/go/ingest), and finds the item there.
			var exists *types.ConditionalCheckFailedException
			if err != nil && !errors.As(err, &exists) {
				return err
			}
		}
		return nil
	})
}
