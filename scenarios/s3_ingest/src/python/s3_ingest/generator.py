"""Made-up data: the same bytes for the same seed in both languages, and nothing for a compressor to find.

SHAKE-128 stretches the seed and the number of a chunk or event into as many bytes as are wanted. It is in both standard
libraries, in native code, and any chunk can be made without those before it: the object does not depend on how it is
cut into parts. The scenario's README.md has the speed beside the system's own random source.
"""

import hashlib
import string

from request import MIB

# The same in Go, see src/go/s3ingest/internal/s3ingest/generator.go.
CHUNK_BYTES = MIB
_ALPHANUMERIC = (string.ascii_uppercase + string.ascii_lowercase + string.digits).encode()
_TO_TEXT = bytes(_ALPHANUMERIC[byte % len(_ALPHANUMERIC)] for byte in range(256))


def part(seed: int, start: int, size: int) -> bytes:
    """Make `size` bytes of an object from `start`, which is a multiple of the chunk size."""
    end = start + size
    chunks = range(start, end, CHUNK_BYTES)
    return b"".join(_stretch(f"{seed}/chunk/{at // CHUNK_BYTES}", min(CHUNK_BYTES, end - at)) for at in chunks)


def events(seed: int, count: int, size: int) -> bytes:
    """Join `count` events of exactly `size` bytes, one to a line; the last line has no end."""
    return b"\n".join(_event(seed, number, size) for number in range(count))


def _event(seed: int, number: int, size: int) -> bytes:
    text = _stretch(f"{seed}/event/{number}", size).translate(_TO_TEXT).decode()
    # A clock would make every object another one; this one ticks once per event.
    head = (
        f'{{"timestamp":"2026-01-01T00:00:00.{number:03}Z","event_id":"{text[:16]}","source":"lambdalab",'
        f'"data":{{"sequence":{number}}},"padding":"'
    )
    return f'{head}{text[16 : 16 + size - len(head) - 2]}"}}'.encode()


def _stretch(name: str, size: int) -> bytes:
    return hashlib.shake_128(name.encode()).digest(size)
