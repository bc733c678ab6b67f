package s3ingest

const longestName = 64

// Error is an invocation that was refused, or whose object could not be written, as answers and log records show it.
type Error struct {
	Code    string  `json:"code"`
	Field   *string `json:"field,omitempty"`
	Message string  `json:"message"`
}

func (e *Error) Error() string { return e.Message }

func fieldError(code, field, message string) *Error {
	return &Error{Code: code, Field: &field, Message: message}
}

// printable makes a name that came from outside fit to print: at most 64 characters, '?' for what no name of ours has.
func printable(name string) string {
	safe := make([]byte, 0, longestName)
	for _, character := range name {
		if len(safe) == longestName {
			break
		}
		if !isWordCharacter(character) {
			character = '?'
		}
		safe = append(safe, byte(character))
	}
	return string(safe)
}

func isWordCharacter(r rune) bool {
	return 'A' <= r && r <= 'Z' || 'a' <= r && r <= 'z' || '0' <= r && r <= '9' ||
		r == '.' || r == '_' || r == ':' || r == '-'
}
