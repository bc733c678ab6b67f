"""All checks of one target, in the order in which they are told: each as soon as it is made."""

import os
from argparse import Namespace
from collections.abc import Iterator, Mapping
from pathlib import Path

from msgspec.structs import replace

from lambdalab.aws.clients import Aws, access_errors
from lambdalab.build.deployment import local_parameters
from lambdalab.build.samconfig import region_of
from lambdalab.design.arms import Arm
from lambdalab.doctor.aws_account import Account
from lambdalab.doctor.deployed import reserved_by, stack_findings
from lambdalab.doctor.durations import find_duration
from lambdalab.doctor.findings import Finding, look, ok, refused, warning
from lambdalab.doctor.local_stack import local_stack_findings
from lambdalab.doctor.machine import machine_findings
from lambdalab.doctor.rate import (
    Work,
    account_finding,
    function_findings,
    generator_finding,
    local_findings,
    table_findings,
    work_of,
)
from lambdalab.errors import AccessError, LambdalabError, StackError
from lambdalab.load.arguments import ARGUMENTS, plan_of
from lambdalab.local.stack import running_stack
from lambdalab.planning.load_schedule import LoadPlan, check_plan
from lambdalab.project import project_root
from lambdalab.records.conditions import Conditions
from lambdalab.records.manifest import QueuedFunction
from lambdalab.run.circumstances import conditions_at, conditions_of_account, conditions_without_stack
from lambdalab.run.experiment import facts_of_settings
from lambdalab.run.local_target import local_target
from lambdalab.run.target import AwsTarget, aws_target


def load_offered(**arguments: str) -> LoadPlan:
    """A load of constant rate by the arguments of ``lambdalab load``; others are its defaults.

    Raises:
        LoadPlanError: one is wrong.
    """
    given = {name.replace("-", "_"): argument.default for name, argument in ARGUMENTS.items()} | arguments
    plan = plan_of(Namespace(**given), 0)
    check_plan(replace(plan, max_messages=2**53))
    return plan


def examine_local(results: Path, offered: LoadPlan | None) -> Iterator[Finding]:
    """Looks at this machine as the place where functions run, at its local stack, and whether a load fits.

    Args:
        results: the folder of run directories.
        offered: a load, or none.
    """
    yield from machine_findings(results, local=True)
    yield from local_stack_findings()
    facts: dict[str, QueuedFunction] = {}
    conditions = conditions_without_stack()
    stack = running_stack()
    if stack is not None and stack.emulator.alive and stack.plane.alive:

        def deployed() -> Iterator[Finding]:
            nonlocal conditions
            target = local_target(stack)
            conditions = conditions_at(target)
            yield from stack_findings(target, facts, load=offered is not None)

        yield from look("deployed stack", deployed)
    elif offered is not None:
        yield ok("deployed stack", "none is up: what `lambdalab up --settings load` would deploy is looked at")
    if offered is not None:
        works = _works(offered, _complete(facts), results, conditions)
        for work in works:
            yield from function_findings(work, unreserved=None, in_flight=None)
        yield from local_findings(works, len(os.sched_getaffinity(0)))
        yield _generator(offered)


def examine_aws(stack_name: str, results: Path, offered: LoadPlan | None) -> Iterator[Finding]:
    """Looks at what this machine sends and builds with, at the AWS account, a stack in it, and whether a load fits.

    Args:
        stack_name: of the deployed stack.
        results: the folder of run directories.
        offered: a load, or none.
    """
    yield from machine_findings(results, local=False)
    aws = Aws(region=region_of(stack_name))
    account = Account(aws)
    yield from account.identity()
    if not account.usable:
        return
    target: AwsTarget | None = None
    facts: dict[str, QueuedFunction] = {}
    try:
        target = aws_target(stack_name, aws=aws)
        yield ok("deployed stack", f"{stack_name} in {target.region}")
    except StackError as error:
        yield warning("deployed stack", error.problem, "nothing can be measured on AWS without one", error.next_step)
    except LambdalabError as error:
        yield refused("deployed stack", error)
    settings = local_parameters({}, "load" if offered is not None else "local", project_root())
    yield from account.quotas(0 if target is not None else reserved_by(settings))
    if target is not None:
        yield from stack_findings(target, facts, load=offered is not None)
    if offered is not None:
        works = _works(
            offered, _complete(facts), results, conditions_of_account(aws) if target is None else conditions_at(target)
        )
        for work in works:
            yield from function_findings(work, unreserved=account.unreserved, in_flight=account.in_flight.value)
            yield from look(f"{work.language} table", lambda work=work: _table(aws, target, account, work))  # type: ignore[misc]
        if account.unreserved is not None:
            yield account_finding(works, account.unreserved)
        yield _generator(offered)


def _complete(facts: Mapping[str, QueuedFunction]) -> dict[str, QueuedFunction]:
    """What could be read of functions; of others what samconfig's load settings would deploy."""
    settings = local_parameters({}, "load", project_root())
    planned = {name: facts_of_settings(Arm(name=name, language=name), settings) for name in ("python", "go")}
    return planned | dict(facts)


def _works(offered: LoadPlan, facts: Mapping[str, QueuedFunction], results: Path, conditions: Conditions) -> list[Work]:
    def work(language: str) -> Work:
        of = facts[language]
        durations = {message.label: find_duration(results, of, message, conditions) for message in offered.mix}
        return work_of(offered, of, durations)

    return [work(language) for language in offered.languages]


def _table(aws: Aws, target: AwsTarget | None, account: Account, work: Work) -> Iterator[Finding]:
    most = warm = None
    refusal: AccessError | None = None
    if target is not None:
        name = target.resources(Arm(name=work.language, language=work.language)).table_name
        try:
            with access_errors(f"table {name}"):
                found = aws.dynamodb.describe_table(TableName=name)["Table"]
        except AccessError as error:
            refusal = error
        else:
            warm = found.get("WarmThroughput", {}).get("WriteUnitsPerSecond")
            if found.get("BillingModeSummary", {}).get("BillingMode") == "PAY_PER_REQUEST":
                units = found.get("OnDemandThroughput", {}).get("MaxWriteRequestUnits", -1)  # -1: no maximum
            else:
                units = found.get("ProvisionedThroughput", {}).get("WriteCapacityUnits", 0)
            most = units if units > 0 else None
    quota = account.table_writes
    yield from table_findings(work, quota=quota.value, quota_source=quota.source, most=most, warm=warm)
    if refusal is not None:
        raise refusal


def _generator(offered: LoadPlan) -> Finding:
    return generator_finding(offered.rate, offered.batch_size, len(os.sched_getaffinity(0)))
