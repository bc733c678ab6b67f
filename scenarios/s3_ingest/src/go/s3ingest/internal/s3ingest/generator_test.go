package s3ingest

import (
	"bytes"
	"crypto/rand"
	"testing"
)

func TestAnObjectDoesNotDependOnHowItIsCut(t *testing.T) {
	whole := make([]byte, 5*mib+7)
	fillPart(whole, 1, 0)
	for _, size := range []int{mib, 2 * mib, 3 * mib} {
		var cut []byte
		for start := 0; start < len(whole); start += size {
			part := make([]byte, min(size, len(whole)-start))
			fillPart(part, 1, int64(start))
			cut = append(cut, part...)
		}
		if !bytes.Equal(cut, whole) {
			t.Errorf("in parts of %d bytes it is another one", size)
		}
	}
}

// The scenario's README.md has what these two say; benchmarks/s3_generator.py does the same in Python.
func BenchmarkFillPart(b *testing.B) {
	part := make([]byte, 8*mib)
	b.SetBytes(int64(len(part)))
	for b.Loop() {
		fillPart(part, 1, 0)
	}
}

func BenchmarkSystemRandom(b *testing.B) {
	part := make([]byte, 8*mib)
	b.SetBytes(int64(len(part)))
	for b.Loop() {
		_, _ = rand.Read(part)
	}
}
