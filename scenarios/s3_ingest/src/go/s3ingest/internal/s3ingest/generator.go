package s3ingest

import (
	"crypto/sha3"
	"fmt"
)

// The same in Python, see src/python/s3_ingest/generator.py, which says why SHAKE-128.
const (
	mib          = 1 << 20
	chunkBytes   = mib
	alphanumeric = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
)

// fillPart fills part with the bytes of an object from start, which is a multiple of the chunk size.
func fillPart(part []byte, seed int64, start int64) {
	for at := 0; at < len(part); at += chunkBytes {
		name := fmt.Sprintf("%d/chunk/%d", seed, (start+int64(at))/chunkBytes)
		stretch(part[at:min(at+chunkBytes, len(part))], name)
	}
}

// events joins count events of exactly size bytes, one to a line; the last line has no end.
func events(seed int64, count, size int) []byte {
	object := make([]byte, 0, count*(size+1))
	text := make([]byte, size)
	for number := range count {
		if number > 0 {
			object = append(object, '\n')
		}
		stretch(text, fmt.Sprintf("%d/event/%d", seed, number))
		for i, b := range text {
			text[i] = alphanumeric[int(b)%len(alphanumeric)]
		}
		end := len(object) + size
		// A clock would make every object another one; this one ticks once per event.
		object = fmt.Appendf(object, `{"timestamp":"2026-01-01T00:00:00.%03dZ","event_id":"%s","source":"lambdalab",`+
			`"data":{"sequence":%d},"padding":"`, number, text[:16], number)
		object = append(object, text[16:16+end-len(object)-2]...)
		object = append(object, `"}`...)
	}
	return object
}

func stretch(into []byte, name string) {
	hash := sha3.NewSHAKE128()
	_, _ = hash.Write([]byte(name)) // neither fails
	_, _ = hash.Read(into)
}
