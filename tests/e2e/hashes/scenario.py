"""Whatever is hashed again and again: a scenario of one function, which the lab has never heard of."""

from lambdalab.records.calls import Outcome
from lambdalab.scenario.base import CallScenario, Response


class Hashes(CallScenario):
    """How long so many rounds take."""

    responses = (Response(measure="hash_ms", words="time to hash", unit="ms"),)

    def read(self, answer: object) -> Outcome:
        match answer:
            case {"hash_ms": float(took)}:
                return Outcome(measures={"hash_ms": took}, amounts={"calls": 1})
        return Outcome(measures={}, amounts={}, fault="its answer has no hash_ms")


SCENARIO = Hashes()
