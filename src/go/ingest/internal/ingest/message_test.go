package ingest

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"os"
	"strings"
	"testing"
)

const contracts = "../../../../../contracts/"

func TestCases(t *testing.T) {
	var cases []struct {
		Name       string
		Body       string
		BodyBase64 []byte `json:"body_base64"`
		Expect     json.RawMessage
	}
	readJSON(t, contracts+"cases.json", &cases)
	if len(cases) < 150 {
		t.Fatalf("only %d cases: the table was cut", len(cases))
	}
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			body := c.BodyBase64
			if body == nil {
				body = []byte(c.Body)
			}
			if got, want := outcome(t, body), compact(t, c.Expect); got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
}

func TestExtremeBodies(t *testing.T) {
	invalid := func(body string) {
		t.Helper()
		if got := outcome(t, []byte(body)); !strings.Contains(got, `"InvalidJson"`) {
			t.Errorf("%.20s...: got %s", body, got)
		}
	}
	invalid(strings.Repeat("[", 500_000) + strings.Repeat("]", 500_000))
	invalid(strings.Repeat(`{"a":`, 150_000) + "1" + strings.Repeat("}", 150_000))
	if got := outcome(t, []byte(`{"batch_id":"b","count":`+strings.Repeat("9", 500_000)+`}`)); !strings.Contains(got, `"InvalidValue"`) {
		t.Errorf("count of 500,000 digits: got %s", got)
	}
}

// TestOutcomes lets tests/contract/test_parity.py compare this parser with the Python one: it reads bodies, one line of
// base64 each, and writes one outcome per line.
func TestOutcomes(t *testing.T) {
	bodies, outcomes := os.Getenv("INGEST_BODIES"), os.Getenv("INGEST_OUTCOMES")
	if bodies == "" || outcomes == "" {
		t.Skip("INGEST_BODIES and INGEST_OUTCOMES are not set")
	}
	in, err := os.Open(bodies)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	var out bytes.Buffer
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		body, err := base64.StdEncoding.DecodeString(lines.Text())
		if err != nil {
			t.Fatal(err)
		}
		out.WriteString(outcome(t, body) + "\n")
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(outcomes, out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

// outcome is what cases.json states under "expect".
func outcome(t *testing.T, body []byte) string {
	t.Helper()
	result := map[string]any{}
	message, err := ParseMessage(body)
	if err != nil {
		result["error"] = err
	} else {
		result["message"] = message
	}
	text, err := json.Marshal(result)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func readJSON(t *testing.T, path string, into any) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

func compact(t *testing.T, text json.RawMessage) string {
	t.Helper()
	var out bytes.Buffer
	if err := json.Compact(&out, text); err != nil {
		t.Fatal(err)
	}
	return out.String()
}
