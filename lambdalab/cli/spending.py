"""The question before money is spent."""

import sys
from decimal import ROUND_UP, Decimal
from typing import TYPE_CHECKING, Protocol

import typer

from lambdalab.cli import EXIT_INTERRUPTED
from lambdalab.errors import UsageError

if TYPE_CHECKING:
    from lambdalab.run.target import AwsTarget


class Priced(Protocol):
    """What is said of every plan before money is spent."""

    @property
    def usd(self) -> Decimal: ...
    @property
    def usd_at_most(self) -> Decimal: ...
    @property
    def assumptions(self) -> tuple[str, ...]: ...
    @property
    def limits(self) -> tuple[str, ...]: ...
    @property
    def unchecked(self) -> tuple[str, ...]: ...


def confirm(target: "AwsTarget", asks: str, plan: Priced, *, minutes: float, yes: bool) -> None:
    """Says what a run on AWS takes and can cost at most, and asks whether to go on.

    Raises:
        UsageError: there is nobody to ask.
    """
    cents = Decimal("0.01")
    typer.echo(
        f"{asks} to stack {target.stack.name} in {target.region}, "
        f"in about {minutes:,.0f} minutes; about {plan.usd.quantize(cents, ROUND_UP)} USD, at most "
        f"{plan.usd_at_most.quantize(cents, ROUND_UP)} USD, if every invocation ran into its timeout",
        err=True,
    )
    for line in (*plan.assumptions, *plan.limits, *(f"not checked: {what}" for what in plan.unchecked)):
        typer.echo(f"  {line}", err=True)
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError("a run on AWS costs money and nobody can be asked here", next_step="add --yes")
    try:
        agreed = typer.confirm("Go on?", err=True)
    except typer.Abort:  # Ctrl-C at the question
        agreed = False
    if not agreed:
        raise typer.Exit(EXIT_INTERRUPTED)
