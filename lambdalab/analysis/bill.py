"""What a run's cells cost: per execution, per item, per million items and in a month at a given rate. Pure, in Decimal.

A bill is a sum, so a cell is priced by the mean of its valid samples, not by their median. Every assumption that is not
a measurement is a sentence of ``Bill.assumptions``.
"""

import math
from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext
from typing import Final

import msgspec

from lambdalab.design.arms import Arm, Load, as_cold
from lambdalab.pricing.costs import (
    BYTES_PER_GB,
    PriceSheet,
    ingest_wru,
    init_in_billed,
    shared_requests,
    sqs_usd,
    tiered,
)
from lambdalab.records.manifest import MessageManifest
from lambdalab.records.trials import InvocationRow, TrialResult, message_batch_ids

MONTH_S: Final = 730 * 3600
"""A month as AWS's own calculator has it: 730 hours."""
POLLERS: Final = 5
POLL_WAIT_S: Final = 20
"""A mapping on an empty queue: five long polls at a time (Lambda developer guide, SQS scaling), each as long as SQS
lets one wait."""
EMF_METRICS: Final = {"sequential": 4, "concurrent": 4, "batch": 3}
"""Metrics of a successful log record (docs/contracts.md), by mode: one dimension set, the language."""
MILLION: Final = Decimal(1_000_000)
_CONTEXT: Final = Context(prec=60, rounding=ROUND_HALF_EVEN)
_DECIMALS: Final = Decimal("1e-18")


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """How to bill. ``per_month`` is a rate in messages per second, None for no monthly figures."""

    free_tier: bool = False
    per_month: Decimal | None = None
    tracing: bool = False
    seed_formula: bool = False


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """An amount in USD by component; None is not known, and then there is no total."""

    lambda_compute_usd: Decimal | None
    lambda_requests_usd: Decimal | None
    dynamodb_usd: Decimal | None
    sqs_usd: Decimal | None
    polling_usd: Decimal | None
    logs_usd: Decimal | None
    metrics_usd: Decimal | None
    xray_usd: Decimal | None

    @property
    def total_usd(self) -> Decimal | None:
        """The sum, None when a component is unknown."""
        parts = msgspec.structs.astuple(self)
        return None if None in parts else sum(parts, Decimal(0))


class SeedFigure(msgspec.Struct, frozen=True, kw_only=True):
    """What the original study's formula gives for a cell."""

    wru: int
    lambda_usd: Decimal
    dynamodb_usd: Decimal
    total_usd: Decimal
    per_item_usd: Decimal


class CellBill(msgspec.Struct, frozen=True, kw_only=True):
    """One arm under one load.

    ``execution`` has no polling, metrics and traces: those are paid by time, not by execution. ``init_usd`` is the
    part of compute that only init caused, None when Billed Duration does not tell or nothing was cold.
    """

    arm: str
    label: str
    n: int
    mean_billed_ms: Decimal | None
    mean_wru: Decimal | None
    expected_wru: int
    execution: Parts
    execution_usd: Decimal | None
    init_usd: Decimal | None
    item_usd: Decimal | None
    million_items: Parts | None
    million_items_usd: Decimal | None
    month: Parts | None
    month_usd: Decimal | None
    seed: SeedFigure | None


class Bill(msgspec.Struct, frozen=True, kw_only=True):
    """The cost of a run, cell by cell. ``run_usd`` is what its valid and invalid samples and its polling cost."""

    price_sheet: str
    terms: Terms
    cells: tuple[CellBill, ...]
    samples_usd: Decimal | None
    polling_requests: int | None
    polling_usd: Decimal | None
    assumptions: tuple[str, ...]
    cautions: tuple[str, ...]
    seed_differences: tuple[str, ...]


def bill_of_run(
    manifest: MessageManifest,
    trials: Sequence[TrialResult],
    rows: Sequence[InvocationRow],
    sheet: PriceSheet,
    terms: Terms = Terms(),  # noqa: B008 - frozen
) -> Bill:
    """Price a run.

    Args:
        manifest: what was asked.
        trials: what the runner saw; the run's length and the messages' sizes are read from them.
        rows: the joined samples.
        sheet: the prices.
        terms: free tier, rate, tracing, formula. A stack that traces is billed for it whatever they say.
    """
    if manifest.parameters.get("Tracing") == "Active":
        terms = msgspec.structs.replace(terms, tracing=True)
    with localcontext(_CONTEXT):
        cells = tuple(
            _cell(manifest, trials, rows, sheet, terms, arm, load)
            for load in manifest.protocol.loads
            for arm in manifest.protocol.arms
        )
        polls = _polling_requests(manifest, trials)
        known = [row.cost_total_usd for row in rows]
        return Bill(
            price_sheet=sheet.name,
            terms=terms,
            cells=cells,
            samples_usd=None if None in known else sum((k for k in known if k is not None), Decimal(0)),
            polling_requests=polls,
            polling_usd=None if polls is None else polls * sheet.sqs.usd_per_million_requests / MILLION,
            assumptions=tuple(_assumptions(sheet, terms, manifest)),
            cautions=tuple(_cautions(cells)),
            seed_differences=tuple(_seed_differences(cells)) if terms.seed_formula else (),
        )


def month(
    sheet: PriceSheet,
    *,
    executions_per_s: Decimal,
    architecture: str,
    gb_s: Decimal | None,
    wru: Decimal | None,
    sqs_requests: Decimal | int | None,
    log_bytes: Decimal | None,
    emf_metrics: int,
    free_tier: bool,
    tracing: bool,
) -> Parts:
    """Price a month of 730 hours at a steady rate, tiers and, if wanted, the free tier applied.

    Args:
        sheet: the prices.
        executions_per_s: executions a second; of one message each as many as there are messages.
        architecture: as Lambda spells it.
        gb_s: of one execution, and so are the next three.
        wru: write units.
        sqs_requests: to send, receive and delete; those of empty polls are added here.
        log_bytes: as CloudWatch Logs counts them.
        emf_metrics: custom metrics that are kept up all month.
        free_tier: whether the account's monthly allowances are unused and apply.
        tracing: whether X-Ray is on, by its default rule: one trace a second and 5 % of what is above.
    """
    n = executions_per_s * MONTH_S

    def free(amount: Decimal) -> Decimal:
        return amount if free_tier else Decimal(0)

    lambda_, sqs = sheet.lambda_, sheet.sqs
    requests_price, sqs_price = lambda_.usd_per_million_requests / MILLION, sqs.usd_per_million_requests / MILLION
    sqs_tiers = [msgspec.structs.replace(tier, usd=tier.usd / MILLION) for tier in sqs.tiers]
    polls = Decimal(polls_of(MONTH_S))
    alone = tiered(polls, sqs_price, sqs_tiers, free=free(sqs.free_requests))
    both = (
        None
        if sqs_requests is None
        else tiered(n * sqs_requests + polls, sqs_price, sqs_tiers, free=free(sqs.free_requests))
    )
    traced = (min(executions_per_s, Decimal(1)) + max(executions_per_s - 1, Decimal(0)) / 20) * MONTH_S
    xray: Decimal | None = Decimal(0)
    if tracing:
        xray = (
            None
            if sheet.xray is None
            else tiered(traced, sheet.xray.usd_per_million_traces / MILLION, (), free=free(sheet.xray.free_traces))
        )
    return Parts(
        lambda_compute_usd=None
        if gb_s is None
        else tiered(
            n * gb_s,
            lambda_.usd_per_gb_s[architecture],
            lambda_.tiers.get(architecture, ()),
            free=free(lambda_.free_gb_s),
        ),
        lambda_requests_usd=tiered(n, requests_price, (), free=free(lambda_.free_requests)),
        dynamodb_usd=None if wru is None else n * wru * sheet.dynamodb.usd_per_million_wru / MILLION,
        sqs_usd=None if both is None else both - alone,
        polling_usd=alone,
        logs_usd=None
        if log_bytes is None
        else tiered(n * log_bytes / BYTES_PER_GB, sheet.logs.usd_per_gb, sheet.logs.tiers),
        metrics_usd=None if sheet.metrics is None else emf_metrics * sheet.metrics.usd_per_metric_month,
        xray_usd=xray,
    )


def polls_of(seconds: int) -> int:
    """Count the empty receives of one mapping on an empty queue in a time."""
    return math.ceil(POLLERS * Decimal(seconds) / POLL_WAIT_S)


def _cell(
    manifest: MessageManifest,
    trials: Sequence[TrialResult],
    rows: Sequence[InvocationRow],
    sheet: PriceSheet,
    terms: Terms,
    arm: Arm,
    load: Load,
) -> CellBill:
    function = manifest.functions[arm.name]
    mine = [row for row in rows if row.valid and row.arm == arm.name and row.label == load.label]
    sent = {
        t.trial.trial_id: t for t in trials if t.trial.arm == arm.name and load in (t.trial.load, as_cold(t.trial.load))
    }
    price = sheet.lambda_.usd_per_gb_s[function.architecture]
    billed, wru = mean(row.billed_ms for row in mine), mean(row.wru for row in mine)
    memory_mb = mine[0].memory_mb if mine else function.memory_mb
    logs, log_bytes = mean(row.cost_logs_usd for row in mine), mean(row.log_bytes for row in mine)
    together = manifest.sent_together(arm.messages)
    requests = max(
        (
            arm.messages * shared_requests(trial.message_bytes / arm.messages, sent=together, received=arm.messages)
            for trial in sent.values()
        ),
        default=None,
    )
    gb_s = None if billed is None else billed / 1000 * memory_mb / 1024
    execution = Parts(
        lambda_compute_usd=None if gb_s is None else gb_s * price,
        lambda_requests_usd=sheet.lambda_.usd_per_million_requests / MILLION,
        dynamodb_usd=None if wru is None else wru * sheet.dynamodb.usd_per_million_wru / MILLION,
        sqs_usd=None if requests is None else sqs_usd(sheet, requests),
        polling_usd=Decimal(0),
        logs_usd=logs,
        metrics_usd=Decimal(0),
        xray_usd=Decimal(0),
    )
    total = execution.total_usd if mine else None
    written = mean(row.written for row in mine)
    item = None if total is None or not written else total / written
    monthly = None
    if terms.per_month is not None and mine:
        monthly = month(
            sheet,
            executions_per_s=terms.per_month / arm.messages,
            architecture=function.architecture,
            gb_s=gb_s,
            wru=wru,
            sqs_requests=requests,
            log_bytes=log_bytes,
            emf_metrics=EMF_METRICS[mine[0].mode],
            free_tier=terms.free_tier,
            tracing=terms.tracing,
        )
    batch_ids, label = next(
        ((t.batch_ids, t.trial.load.label) for t in sent.values()),
        (message_batch_ids(manifest.run_id, arm.messages), load.label),
    )
    return CellBill(
        arm=arm.name,
        label=load.label,
        n=len(mine),
        mean_billed_ms=billed,
        mean_wru=wru,
        expected_wru=sum(
            ingest_wru(function.language, len(batch_id), label, load.size_bytes, load.count) for batch_id in batch_ids
        ),
        execution=execution,
        execution_usd=_money(total),
        init_usd=_money(_init_usd(mine, price)),
        item_usd=_money(item),
        million_items=None if item is None else _of_million(execution, written),
        million_items_usd=None if item is None else _money(item * MILLION),
        month=monthly,
        month_usd=None if monthly is None else _money(monthly.total_usd),
        seed=seed_figure(load, memory_mb, billed, messages=arm.messages)
        if terms.seed_formula and billed is not None
        else None,
    )


def _of_million(execution: Parts, items: Decimal | None) -> Parts:
    parts = msgspec.structs.asdict(execution)
    return Parts(**{name: _money(usd / items * MILLION) if usd and items else usd for name, usd in parts.items()})


SEED_USD_PER_GB_S: Final = Decimal("0.0000166667")
SEED_USD_PER_REQUEST: Final = Decimal("0.20") / MILLION
SEED_USD_PER_WRU: Final = Decimal("0.625") / MILLION


def seed_figure(load: Load, memory_mb: int, billed_ms: Decimal, *, messages: int = 1) -> SeedFigure:
    """Give the original study's figures: GB-s at the x86 price, a request, ceil(payload / 1 KB) units an item."""
    items = messages * load.count
    wru = math.ceil(load.size_bytes / 1024) * items
    compute = billed_ms / 1000 * memory_mb / 1024 * SEED_USD_PER_GB_S + SEED_USD_PER_REQUEST
    dynamodb = wru * SEED_USD_PER_WRU
    total = compute + dynamodb
    return SeedFigure(wru=wru, lambda_usd=compute, dynamodb_usd=dynamodb, total_usd=total, per_item_usd=total / items)


def _init_usd(rows: Iterable[InvocationRow], usd_per_gb_s: Decimal) -> Decimal | None:
    """What init added to the mean compute: Billed Duration above ceil(Duration), where it holds init."""
    shares = []
    for row in rows:
        if row.init_ms is None or row.billed_ms is None or row.duration_ms is None:
            continue
        if (inside := init_in_billed(row.duration_ms, row.init_ms, row.billed_ms)) is None:
            return None
        extra_ms = row.billed_ms - math.ceil(Decimal(str(row.duration_ms))) if inside else 0
        shares.append(Decimal(extra_ms) / 1000 * row.memory_mb / 1024 * usd_per_gb_s)
    return mean(shares)


def _polling_requests(manifest: MessageManifest, trials: Sequence[TrialResult]) -> int | None:
    """The empty receives of a run: each of its mappings, from its start to the last message's end."""
    end_ms = max((trial.drained_at_ms for trial in trials if trial.drained_at_ms is not None), default=None)
    if end_ms is None:
        return None
    seconds = math.ceil(end_ms / 1000 - datetime.fromisoformat(manifest.started_at).timestamp())
    queues = {function.function_name for function in manifest.functions.values()}
    return len(queues) * polls_of(max(seconds, 0))


def _assumptions(sheet: PriceSheet, terms: Terms, manifest: MessageManifest) -> Iterable[str]:
    messages = max(arm.messages for arm in manifest.protocol.arms)
    together = manifest.sent_together(messages)
    yield f"prices of {sheet.name}; no taxes, discounts or storage"
    yield "means of the valid samples; Billed Duration is the platform's, init inside, and never added again"
    if together > messages:
        yield f"{together} messages are sent with one request; each is received and deleted alone"
    elif messages == 1:
        yield "each message is sent, received and deleted alone; with batches the requests are fewer"
    else:
        yield "batches are always full, and the messages of one are sent, received and deleted with one request each"
    yield (
        f"a mapping's empty queue is polled by {POLLERS} long polls of {POLL_WAIT_S} s, "
        f"{polls_of(MONTH_S):,} requests a month for each queue, also while messages come"
    )
    yield "the free tier is unused and applied" if terms.free_tier else "no free tier"
    yield "X-Ray by its default rule, one trace a second and 5 % above" if terms.tracing else "X-Ray is off"
    if terms.per_month is not None:
        yield f"{terms.per_month} messages/s all through a month of 730 hours, each cell as if it were the only one"
        yield "the log record's custom metrics are kept up all month: one dimension set for each language"


def _cautions(cells: Iterable[CellBill]) -> Iterable[str]:
    for cell in cells:
        if cell.mean_wru is not None and cell.mean_wru != cell.expected_wru:
            yield (
                f"{cell.arm} {cell.label}: DynamoDB returned {cell.mean_wru.normalize():f} write units on average, "
                f"the item-size rule gives {cell.expected_wru}"
            )


def _seed_differences(cells: Iterable[CellBill]) -> Iterable[str]:
    for cell in cells:
        if cell.seed is not None and cell.mean_wru is not None and cell.mean_wru != cell.seed.wru:
            yield (
                f"{cell.arm} {cell.label}: {cell.mean_wru.normalize():f} write units were used, the study counts "
                f"{cell.seed.wru}, because its ceil(payload / 1 KB) leaves out names, keys and the other attributes"
            )
    yield "the study takes the x86 price for every architecture"
    yield "the study has no cost of SQS requests, polling, logs and metrics"


def mean(values: Iterable[float | Decimal | None]) -> Decimal | None:
    """The mean of what is there, exact to 60 digits."""
    known = [Decimal(str(value)) for value in values if value is not None]
    return sum(known, Decimal(0)) / len(known) if known else None


def _money(amount: Decimal | None) -> Decimal | None:
    return None if amount is None else amount.quantize(_DECIMALS)
