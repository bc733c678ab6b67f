"""What became of sending each message, whichever process sent it."""

import msgspec


class Send(msgspec.Struct, frozen=True, kw_only=True):
    """One message as the generator sent it, or tried to. Times are milliseconds since 1970, of one process's clock.

    ``phase`` is ``ramp`` or ``hold``, ``step`` counts from 1. ``intended_at_ms`` is when the schedule wanted it sent:
    latency counts from there. ``error`` says why it was given up; it is None if and only if ``message_id`` is not.
    """

    batch_id: str
    arm: str
    label: str
    step: int
    phase: str
    intended_at_ms: float
    began_at_ms: float
    answered_at_ms: float | None
    message_bytes: int
    items: int
    attempts: int
    message_id: str | None
    error: str | None
