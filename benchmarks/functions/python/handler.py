"""A fixed amount of computing, in Python."""


def handler(event: dict[str, int], _context: object) -> int:
    """Shift and mix a number as often as the event says."""
    x = 88172645463325252
    for _ in range(event["iterations"]):
        x ^= (x << 13) & 0xFFFFFFFFFFFFFFFF
        x ^= x >> 7
        x ^= (x << 17) & 0xFFFFFFFFFFFFFFFF
    return x
