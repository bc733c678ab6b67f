"""The settings that a plane is started with. A command that starts a plane imports only this module of it."""

import msgspec

from lambdalab.local.latency import LatencyModel


class Timing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long an event waits; the defaults are Lambda's. ``age_limit_s`` stands in for the function's, if shorter."""

    retry_delays_s: tuple[float, float] = (60.0, 120.0)
    first_backoff_s: float = 1.0
    longest_backoff_s: float = 300.0
    age_limit_s: float | None = None


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a plane is started with. ``interpreters`` maps a runtime such as ``python3.12`` to its Python.

    Without a ``latency`` model functions speak to the emulator itself.
    """

    endpoint_url: str
    stack_name: str
    port: int
    folder: str
    interpreters: dict[str, str]
    async_timing: Timing = Timing()
    latency: LatencyModel | None = None
    cpu_scale: float = 1.0
