"""The command doctor: what is wrong with this machine, an account, or a load before it is sent."""

from typing import TYPE_CHECKING, Annotated

import typer

from lambdalab.cli.app import app
from lambdalab.cli.running import RESULTS, Results, TargetName, refuse_contradictions
from lambdalab.errors import SetupError, UsageError
from lambdalab.project import state_folder
from lambdalab.report.console import make_console, say

if TYPE_CHECKING:
    from rich.console import Console

    from lambdalab.doctor.findings import Finding

_STYLES = {"ok": "green", "warning": "yellow", "wrong": "bold red"}
_STACK_NAMES = {False: "lambdalab", True: "lambdalab-load"}
"""Of samconfig's settings ``default`` and, for a load, ``load``."""


@app.command(
    epilog="Example:  lambdalab doctor\n\nExample:  lambdalab doctor --target aws --stack-name lambdalab\n\n"
    "Example:  lambdalab doctor --target aws --rate 200 --mix 1024Bx10 --languages go"
)
def doctor(
    context: typer.Context,
    target: Annotated[TargetName, typer.Option(help="Where functions run.")] = TargetName.LOCAL,
    stack_name: Annotated[
        str | None,
        typer.Option(help="The stack, for --target aws; by default lambdalab, and with --rate lambdalab-load."),
    ] = None,
    rate: Annotated[
        str | None, typer.Option(help="Also whether so many messages a second are within quotas and this machine.")
    ] = None,
    languages: Annotated[
        str, typer.Option(help="With --rate: which functions, with ratios if any, as for load.")
    ] = "python,go",
    mix: Annotated[str, typer.Option(help="With --rate: the messages, as for load.")] = "1024Bx10",
    batch_size: Annotated[str, typer.Option(help="With --rate: messages per request, as for load.")] = "1",
    results: Results = RESULTS,
    as_json: Annotated[bool, typer.Option("--json", help="Print the checks as JSON.")] = False,
) -> None:
    """Say what is wrong with this machine or account, and what to do about it; nothing is changed."""
    import msgspec

    from lambdalab.doctor.examine import examine_aws, examine_local, load_offered
    from lambdalab.doctor.findings import Verdict

    refuse_contradictions(context, target)
    if rate is None:
        _refuse_load_options(context)
        offered = None
    else:
        offered = load_offered(rate=rate, languages=languages, mix=mix, batch_size=batch_size)
    name = stack_name or _STACK_NAMES[offered is not None]
    checks = examine_aws(name, results, offered) if target is TargetName.AWS else examine_local(results, offered)
    state_folder()  # the project there is none of, or a disk that takes nothing, is said alone
    say("looking at this machine" + (" and the AWS account" if target is TargetName.AWS else ""))
    findings = []
    console = make_console()
    for finding in checks:
        findings.append(finding)
        if not as_json:
            _show(finding, console)
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode({"target": target, "checks": findings})).decode())
    bad = [finding.check for finding in findings if finding.verdict is Verdict.WRONG]
    if bad:
        raise SetupError(
            f"{len(bad)} of {len(findings)} checks {'is' if len(bad) == 1 else 'are'} wrong: {', '.join(bad)}",
            next_step="follow the advice shown" if not as_json else "follow next_step of each",
        )
    if not as_json:
        warnings = sum(finding.verdict is Verdict.WARNING for finding in findings)
        console.print(f"\n{len(findings)} checks: nothing is wrong, {warnings} warnings")


def _refuse_load_options(context: typer.Context) -> None:
    for name in ("languages", "mix", "batch_size"):
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            option = f"--{name.replace('_', '-')}"
            raise UsageError(
                f"{option} is of a load, and there is none", next_step=f"add --rate, or leave {option} out"
            )


def _show(finding: "Finding", console: "Console") -> None:
    console.print(f"{finding.verdict:<8}", style=_STYLES[finding.verdict], end="")
    console.print(f" {finding.check:<19} {finding.sentence}", soft_wrap=True)
