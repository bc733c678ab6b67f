"""Under what functions ran, beside their own settings. Runs under unlike conditions say nothing of each other. Pure."""

from collections.abc import Iterator
from typing import Final, Self

import msgspec

from lambdalab.records.manifest import FunctionFacts, Manifest, latency_name

_FUNCTION: Final = ("language", "runtime", "architecture", "memory_mb")
"""What decides how fast a function is, beside its code."""
_MACHINE: Final = ("processor", "architecture", "cores")
"""What of a machine may not change within a run; a kernel or a few MB of memory may."""


class Conditions(msgspec.Struct, frozen=True, kw_only=True):
    """The conditions of a run.

    ``machine`` ran the lab, which locally is also what was measured. ``cpu_limit`` is None where no stack is up yet.
    """

    target: str
    region: str
    machine: dict[str, str]
    cpu_limit: str | None
    cpu_scale: float = 1.0
    latency: dict[str, object] | None = None

    @classmethod
    def of(cls, manifest: Manifest) -> Self:
        """The conditions of a run that was made."""
        return cls(**{name: getattr(manifest, name) for name in cls.__struct_fields__})

    def allow(self, manifest: Manifest) -> bool:
        """Whether the times of another run hold under these conditions."""
        place = (self.target, self.machine if self.target == "local" else self.region)
        theirs = (manifest.target, manifest.machine if manifest.target == "local" else manifest.region)
        return (
            place == theirs
            and self.cpu_limit in (None, manifest.cpu_limit)
            and (self.cpu_scale, self.latency) == (manifest.cpu_scale, manifest.latency)
        )

    def changes_since(self, manifest: Manifest) -> Iterator[tuple[str, object, object]]:
        """What is no longer as it was when a run began: its name, what it was, what it is now."""
        if self.region != manifest.region:
            yield "region", manifest.region, self.region
        if self.latency != manifest.latency:
            before, now = latency_name(manifest.latency), latency_name(self.latency)
            yield "latency model", before or "none", "another of that name" if before == now else now or "none"
        if self.cpu_limit != manifest.cpu_limit:
            yield "plane cpu_limit", manifest.cpu_limit, self.cpu_limit
        if self.cpu_scale != manifest.cpu_scale:
            yield "plane cpu_scale", manifest.cpu_scale, self.cpu_scale
        for key in _MACHINE if self.target == "local" else ():
            before, now = manifest.machine.get(key), self.machine.get(key)
            if before not in (None, now):
                yield f"machine {key}", before, now


def run_alike(one: FunctionFacts, other: FunctionFacts) -> bool:
    """Whether two functions take the same time for the same work: same settings, and same code where it is known."""
    codes = {one.code_sha256, other.code_sha256} - {""}
    return len(codes) < 2 and all(getattr(one, name) == getattr(other, name) for name in _FUNCTION)
