package ingest

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

const (
	maxSizeBytes  = 400_000 // DynamoDB's limit is 409,600 bytes with names and keys
	maxCount      = 4096
	maxBatchBytes = 64 << 20
)

var fieldNames = []string{"batch_id", "size_bytes", "count", "label", "mode"}

// Message is one accepted message, defaults filled in.
type Message struct {
	BatchID   string `json:"batch_id"`
	SizeBytes int    `json:"size_bytes"`
	Count     int    `json:"count"`
	Label     string `json:"label"`
	Mode      string `json:"mode"`
}

// ParseMessage parses the body of an SQS message or a direct event. Its error is always an [*Error].
func ParseMessage(text []byte) (Message, error) {
	value, err := decode(text)
	if err != nil {
		return Message{}, err
	}
	object, ok := value.(map[string]any)
	if !ok {
		return Message{}, &Error{Code: "InvalidMessage", Message: "message must be a JSON object"}
	}
	if err := refuseUnknown(object); err != nil {
		return Message{}, err
	}
	if _, ok := object["batch_id"]; !ok {
		return Message{}, fieldError("MissingField", "batch_id", "batch_id is required")
	}
	fields := fieldReader{object: object}
	message := Message{
		BatchID:   fields.word("batch_id", "", 256),
		SizeBytes: fields.integer("size_bytes", 1024, maxSizeBytes),
		Count:     fields.integer("count", 100, maxCount),
	}
	message.Label = fields.word("label", fmt.Sprintf("%dBx%d", message.SizeBytes, message.Count), 64)
	message.Mode = fields.mode()
	if fields.err != nil {
		return Message{}, fields.err
	}
	if message.SizeBytes*message.Count > maxBatchBytes {
		rule := fmt.Sprintf("size_bytes times count must be at most %d", maxBatchBytes)
		return Message{}, &Error{Code: "InvalidValue", Message: rule}
	}
	return message, nil
}

func refuseUnknown(object map[string]any) error {
	known := map[string]bool{}
	for _, name := range fieldNames {
		known[name] = true
	}
	first, found := "", false
	for name := range object {
		if !known[name] && (!found || name < first) {
			first, found = name, true
		}
	}
	if !found {
		return nil
	}
	name := printable(first)
	rule := name + " is not a field of the message; the fields are " + strings.Join(fieldNames, ", ")
	return fieldError("UnknownField", name, rule)
}

// fieldReader reads fields in the order they are asked for and keeps the first error.
type fieldReader struct {
	object map[string]any
	err    *Error
}

func (r *fieldReader) word(name, fallback string, longest int) string {
	value, present := r.object[name]
	if !present {
		return fallback
	}
	rule := fmt.Sprintf("%s must be a string of 1 to %d characters from A-Z a-z 0-9 . _ : -", name, longest)
	text, ok := value.(string)
	if !ok {
		r.fail("InvalidType", name, rule)
	} else if !isWord(text, longest) {
		r.fail("InvalidValue", name, rule)
	}
	return text
}

func (r *fieldReader) integer(name string, fallback, most int) int {
	value, present := r.object[name]
	if !present {
		return fallback
	}
	rule := fmt.Sprintf("%s must be an integer from 1 to %d", name, most)
	number, ok := value.(json.Number)
	if !ok || strings.ContainsAny(number.String(), ".eE") {
		r.fail("InvalidType", name, rule)
		return 0
	}
	n, err := strconv.Atoi(number.String())
	if err != nil || n < 1 || n > most {
		r.fail("InvalidValue", name, rule)
	}
	return n
}

func (r *fieldReader) mode() string {
	value, present := r.object["mode"]
	if !present {
		return "sequential"
	}
	const rule = "mode must be sequential, concurrent or batch"
	mode, ok := value.(string)
	if !ok {
		r.fail("InvalidType", "mode", rule)
		return ""
	}
	switch mode {
	case "sequential", "concurrent", "batch":
	default:
		r.fail("InvalidValue", "mode", rule)
	}
	return mode
}

func (r *fieldReader) fail(code, name, rule string) {
	if r.err == nil {
		r.err = fieldError(code, name, rule)
	}
}
