"""Says what it is told."""


def handler(event: object, _context: object) -> object:
    """Answer the event."""
    return event
