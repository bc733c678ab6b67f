"""Whether the settings of a deployed stack go together, on AWS and locally alike."""

from collections.abc import Iterator, Mapping
from typing import Final

from lambdalab.design.arms import Arm
from lambdalab.doctor.findings import Finding, look, ok, warning, wrong
from lambdalab.errors import StackError
from lambdalab.planning.protocol import LANGUAGES_OF_SCENARIO
from lambdalab.records.manifest import QueuedFunction
from lambdalab.run.target import AwsTarget

LEAST_RECEIVES: Final = 5
"""AWS's advice for a queue that feeds a function (Lambda, "Configuring an Amazon SQS event source")."""
VISIBILITY_OF_TIMEOUT: Final = 6
"""Times the function's timeout; likewise."""


def stack_findings(target: AwsTarget, facts: dict[str, QueuedFunction], *, load: bool) -> Iterator[Finding]:
    """Looks at a stack, and keeps in ``facts`` what was read of the function of each language.

    Args:
        target: the stack.
        facts: filled.
        load: whether load shall be put on it.
    """
    languages = LANGUAGES_OF_SCENARIO["ingest"]
    try:
        for language in languages:
            target.resources(Arm(name=language, language=language))
    except StackError as error:  # it is of another scenario, which is nothing wrong unless load shall be put on it
        kind, means = (wrong, "no load can be put on it") if load else (warning, "its settings are not looked at")
        yield kind("deployed stack", error.problem, means, error.next_step)
        return
    for language in languages:

        def read(language: str = language) -> Iterator[Finding]:
            facts[language] = target.facts(Arm(name=language, language=language))
            yield from settings_findings(facts[language], load=load)

        yield from look(f"{language} function", read)


def settings_findings(of: QueuedFunction, *, load: bool) -> Iterator[Finding]:
    """Whether the settings of one function, its mapping and its queue go together."""
    name = of.language
    least_s = VISIBILITY_OF_TIMEOUT * of.timeout_s
    found = f"VisibilityTimeout {of.visibility_timeout_s} s, Timeout {of.timeout_s} s"
    change = f"deploy with VisibilityTimeout={least_s}, or a lower Timeout"
    if of.visibility_timeout_s < of.timeout_s:
        yield wrong(f"{name} visibility", found, "messages come again while the function works on them", change)
    elif of.visibility_timeout_s < least_s:
        means = f"AWS advises {VISIBILITY_OF_TIMEOUT} times: throttled batches come again too soon"
        yield warning(f"{name} visibility", found, means, change)
    else:
        yield ok(f"{name} visibility", found)
    yield _concurrency(of, load=load)
    if of.max_receive_count is None:
        yield warning(
            f"{name} redrive", "no dead-letter queue", "a message that fails comes again for days",
            "deploy this project's template.yaml",
        )  # fmt: skip
    elif of.max_receive_count < LEAST_RECEIVES:
        means = f"AWS advises {LEAST_RECEIVES}: throttles use receives up too"
        found = f"maxReceiveCount {of.max_receive_count}"
        yield warning(f"{name} redrive", found, means, f"deploy with MaxReceiveCount={LEAST_RECEIVES} or more")
    else:
        yield ok(f"{name} redrive", f"maxReceiveCount {of.max_receive_count}")


def _concurrency(of: QueuedFunction, *, load: bool) -> Finding:
    check, most, reserved = f"{of.language} concurrency", of.maximum_concurrency, of.reserved_concurrency
    found = (
        f"MaximumConcurrency {most or 'not set'}, reserved concurrency {'not set' if reserved is None else reserved}"
    )
    if reserved == 0:
        return wrong(check, found, "the function takes no invocation", "deploy the stack again: nothing here sets 0")
    if load and reserved == 1:
        means = "load is throttled and dead-lettered, so `lambdalab load` refuses it"
        return wrong(check, found, means, "deploy with `--config-env load`")
    if reserved is not None and most is not None and most > reserved:
        means = "the queue hands over more than may run, and throttles use up receives"
        return warning(check, found, means, "reserve at least MaximumConcurrency, or leave one of them empty")
    return ok(check, found)


def reserved_by(parameters: Mapping[str, str]) -> int:
    """How many environments a stack with these template parameters reserves."""
    return len(LANGUAGES_OF_SCENARIO["ingest"]) * int(parameters.get("ReservedConcurrency") or 0)
