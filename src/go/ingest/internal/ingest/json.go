package ingest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"unicode/utf8"
)

const maxDepth = 32

var errInvalidJSON = &Error{
	Code:    "InvalidJson",
	Message: fmt.Sprintf("message must be JSON: valid UTF-8, no key twice in an object, at most %d levels", maxDepth),
}

// decode reads one JSON value and refuses what encoding/json lets pass: invalid UTF-8, lone surrogates, duplicate
// keys, deep nesting. Objects become maps, so that keys match exactly; numbers stay text. An array is only
// recognised, because no field is one.
func decode(text []byte) (any, error) {
	if !utf8.Valid(text) || !json.Valid(text) || hasLoneSurrogate(text) {
		return nil, errInvalidJSON
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	return decodeValue(decoder, maxDepth)
}

// decodeValue reads the next value of text that is known to be valid.
func decodeValue(decoder *json.Decoder, depth int) (any, error) {
	token, err := decoder.Token()
	if err != nil {
		return nil, errInvalidJSON
	}
	open, isContainer := token.(json.Delim)
	if !isContainer {
		return token, nil
	}
	if depth == 0 {
		return nil, errInvalidJSON
	}
	object := map[string]any{}
	for decoder.More() {
		var key string
		if open == '{' {
			token, _ := decoder.Token()
			key = token.(string)
			if _, seen := object[key]; seen {
				return nil, errInvalidJSON
			}
		}
		if object[key], err = decodeValue(decoder, depth-1); err != nil {
			return nil, err
		}
	}
	_, _ = decoder.Token() // the closing bracket
	if open == '[' {
		return []any{}, nil
	}
	return object, nil
}

// escape matches one escape of a JSON string, a proper surrogate pair as one match. A lone surrogate is the only
// match of six bytes.
var escape = regexp.MustCompile(`\\u[dD][89abAB]..\\u[dD][c-fC-F]..|\\u[dD][89a-fA-F]..|\\.`)

func hasLoneSurrogate(validText []byte) bool {
	for _, match := range escape.FindAllIndex(validText, -1) {
		if match[1]-match[0] == len(`\uD800`) {
			return true
		}
	}
	return false
}

// unquote reads a JSON string; it reports whether there is one. A text with a lone surrogate, which has no UTF-8, is
// returned as one that is no UTF-8 either, where encoding/json would replace what is wrong.
func unquote(raw json.RawMessage) (string, bool) {
	var text *string
	if err := json.Unmarshal(raw, &text); err != nil || text == nil {
		return "", false
	}
	if hasLoneSurrogate(raw) {
		return "\xff", true
	}
	return *text, true
}
