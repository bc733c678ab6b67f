"""Bills against cases worked by hand, in exact decimals; and the formula of the original study."""

from decimal import Decimal
from typing import Any

import msgspec
import pytest
from samples import (
    PRICES,
    make_lines,
    make_manifest,
    make_report,
    make_result,
    make_results,
    make_trials,
    record_line,
)

from lambdalab.analysis.bill import Bill, Parts, Terms, bill_of_run, month, polls_of, seed_figure
from lambdalab.analysis.message_rows import join
from lambdalab.design.arms import Factors, Load, Start
from lambdalab.logs.observations import observe
from lambdalab.logs.platform_lines import render_report
from lambdalab.pricing.costs import (
    PriceSheet,
    Tier,
    ingest_wru,
    init_in_billed,
    item_bytes,
    tiered,
    write_units,
)

MANIFEST = make_manifest()
RESULTS = make_results(MANIFEST)


def bill(terms: Terms | None = None, **changes: Any) -> Bill:
    lines = [line for result in RESULTS for line in make_lines(result)]
    rows = [msgspec.structs.replace(row, **changes) for row in join(MANIFEST, RESULTS, observe(lines), PRICES)]
    return bill_of_run(MANIFEST, RESULTS, rows, PRICES, terms or Terms())


@pytest.mark.parametrize(
    ("amount", "free", "usd"),
    [
        ("0", "0", "0"),
        ("10", "0", "10"),
        ("11", "0", "10.5"),
        ("35", "0", "21.25"),  # 10 at 1, 20 at 0.5, 5 at 0.25
        ("35", "4", "20.25"),  # the allowance is taken off the amount: 31 are left
        ("3", "4", "0"),
    ],
)
def test_every_part_of_an_amount_has_the_price_of_its_tier(amount: str, free: str, usd: str) -> None:
    tiers = [Tier(above=Decimal(30), usd=Decimal("0.25")), Tier(above=Decimal(10), usd=Decimal("0.5"))]
    assert tiered(Decimal(amount), Decimal(1), tiers, free=Decimal(free)) == Decimal(usd)


def in_millions(tiers: list[Tier]) -> list[Tier]:
    return [Tier(above=tier.above / 10**6, usd=tier.usd) for tier in tiers]


def test_the_tiers_of_the_sheet_by_hand() -> None:
    x86, arm = PRICES.lambda_.usd_per_gb_s["x86_64"], PRICES.lambda_.usd_per_gb_s["arm64"]
    tiers = PRICES.lambda_.tiers
    # 6 B x 0.0000166667 + 9 B x 0.0000150000 + 1 B x 0.0000133334
    assert tiered(Decimal(16 * 10**9), x86, tiers["x86_64"]) == Decimal("248333.6")
    # 7.5 B x 0.0000133334 + 11.25 B x 0.0000120001 + 1.25 B x 0.0000106667
    assert tiered(Decimal(20 * 10**9), arm, tiers["arm64"]) == Decimal("248335")
    # 100 B x 0.40 + 100 B x 0.30 + 50 B x 0.24, by the million
    assert tiered(Decimal(250_000), PRICES.sqs.usd_per_million_requests, in_millions(PRICES.sqs.tiers)) == 82_000
    # 10 TB x 0.50 + 20 TB x 0.25 + 20 TB x 0.10 + 1 TB x 0.05
    assert tiered(Decimal(51 * 1024), PRICES.logs.usd_per_gb, PRICES.logs.tiers) == Decimal("12339.20")


@pytest.mark.parametrize(
    ("billed_ms", "load", "wru", "dynamodb", "total"),
    [
        # 0.1 s x 0.125 GB x 0.0000166667 + 0.0000002 = 0.00000040833375
        ("100", Load(label="S", size_bytes=1024, count=100, start=Start.WARM), 100, "0.0000625", "0.00006290833375"),
        ("100", Load(label="L", size_bytes=65536, count=100, start=Start.WARM), 6400, "0.0040", "0.00400040833375"),
        # 0.147 s: 0.018375 GB-s, 0.00000030625061250, and the request; of a byte it counts a whole unit
        ("147", Load(label="W", size_bytes=1, count=1, start=Start.COLD), 1, "0.000000625", "0.0000011312506125"),
    ],
)
def test_the_studys_own_figures(billed_ms: str, load: Load, wru: int, dynamodb: str, total: str) -> None:
    figure = seed_figure(load, 128, Decimal(billed_ms))
    assert (figure.wru, figure.dynamodb_usd, figure.total_usd) == (wru, Decimal(dynamodb), Decimal(total))
    assert figure.per_item_usd == Decimal(total) / load.count


def test_an_item_is_sized_by_names_and_values() -> None:
    assert item_bytes({"pk": "é", "n": 0, "b": b"ab", "t": True, "z": None}) == (2 + 2) + (1 + 1) + (1 + 2) + 2 + 2
    # digits that count: 1795255200001 has 13, 100 has one, -12.5 three
    assert [item_bytes({"": n}) for n in (1_795_255_200_001, 100, Decimal("-12.5"))] == [8, 2, 3]
    assert [write_units(size) for size in (1, 1024, 1025)] == [1, 1, 2]


def test_the_payloads_of_the_study_take_2_and_65_units_and_not_1_and_64() -> None:
    assert ingest_wru("python", 40, "SMALL", 1024, 100) == 200
    assert ingest_wru("python", 40, "LARGE", 65_536, 100) == 6500
    assert ingest_wru("go", 40, "TINY", 1, 1) == 1
    # pk 2+9+1, sk 2+5, lang 4+2, label 5+1, size_bytes 10+3, seq 3+2, t_start_ms 10+8, payload 7, cold_start 10+1:
    # 1,024 bytes in all for items 0 to 9; the sk of items 10 and 11 is one longer
    base = 12 + 7 + 6 + 6 + 13 + 5 + 18 + 7 + 11
    assert ingest_wru("go", 1, "L", 1024 - base, 12) == 10 + 2 * 2


def test_whether_billed_duration_holds_init() -> None:
    assert init_in_billed(15.74, 130.49, 147) is True
    assert init_in_billed(2.75, 113.51, 117) is True
    assert init_in_billed(133.61, 80.00, 214) is True
    assert init_in_billed(3016.78, 84.00, 3101) is True
    assert init_in_billed(15.74, 130.49, 16) is False
    assert init_in_billed(15.74, 130.49, 99) is None


def month_of_one_a_second(gb_s: str, *, free_tier: bool, tracing: bool) -> Parts:
    return month(
        PRICES,
        executions_per_s=Decimal(1),
        architecture="x86_64",
        gb_s=Decimal(gb_s),
        wru=Decimal(200),
        sqs_requests=3,
        log_bytes=Decimal(1024),
        emf_metrics=4,
        free_tier=free_tier,
        tracing=tracing,
    )


def test_a_month_by_hand() -> None:
    parts = month_of_one_a_second("0.1", free_tier=False, tracing=True)
    assert polls_of(2_628_000) == 657_000
    assert parts.lambda_compute_usd == Decimal("262800") * Decimal("0.0000166667")
    assert parts.lambda_requests_usd == Decimal("0.5256")
    assert parts.dynamodb_usd == Decimal("328.5")  # 525.6 M units
    assert parts.sqs_usd == Decimal("3.1536")  # 7,884,000 requests
    assert parts.polling_usd == Decimal("0.2628")
    assert parts.logs_usd == Decimal(2_628_000 * 1024) / 2**30 / 2
    assert parts.metrics_usd == Decimal("1.20")
    assert parts.xray_usd == Decimal("13.14")  # one trace a second
    free = month_of_one_a_second("0.2", free_tier=True, tracing=False)
    assert free.lambda_compute_usd == Decimal("125600") * Decimal("0.0000166667")  # 525,600 less 400,000 GB-s
    assert free.lambda_requests_usd == Decimal("0.3256")
    assert (free.polling_usd, free.sqs_usd) == (Decimal(0), Decimal("3.0164"))  # 8,541,000 less 1,000,000 requests
    assert free.xray_usd == 0


def test_a_cell_of_a_run() -> None:
    found = bill()
    cold = next(cell for cell in found.cells if (cell.arm, cell.label) == ("python", "WARMUP"))
    compute = Decimal("0.147") * Decimal("0.125") * Decimal("0.0000166667")
    assert cold.execution.lambda_compute_usd == compute
    assert cold.init_usd == (Decimal("0.131") * Decimal("0.125") * Decimal("0.0000166667")).quantize(Decimal("1e-18"))
    assert cold.execution_usd == cold.execution.total_usd
    assert cold.item_usd is not None
    assert cold.million_items_usd == cold.item_usd * 10**6
    assert cold.million_items is not None
    assert cold.million_items.total_usd == cold.million_items_usd
    small = next(cell for cell in found.cells if (cell.arm, cell.label) == ("go", "SMALL"))
    assert small.million_items is not None
    assert small.million_items.dynamodb_usd == Decimal("1.25")  # 200 units of 0.625 USD a million for 100 items
    assert small.million_items.sqs_usd == Decimal("0.012")  # 3 requests of 0.40 USD a million for 100 items
    assert small.million_items.lambda_requests_usd == Decimal("0.002")
    assert (cold.mean_wru, cold.expected_wru) == (Decimal(2), 2)
    assert found.cautions == ()
    assert cold.month is None


def test_a_stack_that_traces_is_billed_for_it() -> None:
    lines = [line for result in RESULTS for line in make_lines(result)]
    rows = join(MANIFEST, RESULTS, observe(lines), PRICES)
    traced = msgspec.structs.replace(MANIFEST, parameters={"Tracing": "Active"})
    terms = Terms(per_month=Decimal(10))
    on, off = (bill_of_run(manifest, RESULTS, rows, PRICES, terms) for manifest in (traced, MANIFEST))
    assert any(line.startswith("X-Ray by its default rule") for line in on.assumptions)
    assert "X-Ray is off" in off.assumptions
    for cell, untraced in zip(on.cells, off.cells, strict=True):
        assert cell.month is not None
        assert untraced.month is not None
        assert cell.month.xray_usd
        assert untraced.month.xray_usd == 0


def test_a_batch_is_one_execution_of_all_its_messages() -> None:
    manifest = make_manifest(factors=Factors(language=("go",), batch_size=(5,)))
    results = [make_result(trial, messages=5, message_bytes=500) for trial in make_trials(manifest)]
    rows = join(manifest, results, observe([line for result in results for line in make_lines(result)]), PRICES)
    found = bill_of_run(manifest, results, rows, PRICES, Terms(per_month=Decimal(5), seed_formula=True))
    small = found.cells[1]
    assert (small.label, small.n, small.mean_wru, small.expected_wru) == ("SMALL", 1, Decimal(1000), 1000)
    assert small.execution.sqs_usd == Decimal("0.0000012")  # one send, one receive, one delete
    assert small.million_items is not None
    assert small.million_items.sqs_usd == Decimal("0.0024")  # for 500 items
    assert small.month is not None
    assert small.month.lambda_requests_usd == Decimal("0.5256")  # five messages a second are one execution
    assert small.month.dynamodb_usd == Decimal("1642.5")  # 1,000 units a second
    assert small.seed is not None
    assert (small.seed.wru, small.seed.per_item_usd) == (500, small.seed.total_usd / 500)
    assert found.cautions == ()
    assert any("batches are always full" in assumption for assumption in found.assumptions)
    assert any("each message is sent, received and deleted alone" in assumption for assumption in bill().assumptions)


def test_units_that_the_size_rule_does_not_give_are_cautioned() -> None:
    assert bill(wru=1.0).cautions[0] == (
        "python WARMUP: DynamoDB returned 1 write units on average, the item-size rule gives 2"
    )


def test_the_study_beside_the_truth_names_the_differences() -> None:
    found = bill(Terms(seed_formula=True))
    assert found.seed_differences[2] == (
        "python SMALL: 200 write units were used, the study counts 100, because its ceil(payload / 1 KB) leaves out "
        "names, keys and the other attributes"
    )
    assert bill().seed_differences == ()


def test_without_a_valid_sample_there_is_no_cost() -> None:
    rows = join(MANIFEST, RESULTS, observe([]), PRICES)
    found = bill_of_run(MANIFEST, RESULTS, rows, PRICES, Terms(per_month=Decimal(1)))
    assert {(cell.n, cell.execution_usd, cell.item_usd, cell.month) for cell in found.cells} == {(0, None, None, None)}
    assert found.samples_usd is None


def test_a_price_of_zero_leaves_what_was_used_as_it_was() -> None:
    free_logs = msgspec.structs.replace(PRICES.logs, usd_per_gb=Decimal(0))
    sheet = msgspec.structs.replace(
        PRICES, logs=msgspec.structs.replace(free_logs, tiers=[Tier(above=Decimal(1), usd=Decimal(2))])
    )
    rows = join(MANIFEST, RESULTS, observe([line for result in RESULTS for line in make_lines(result)]), sheet)
    found = bill_of_run(MANIFEST, RESULTS, rows, sheet, Terms(per_month=Decimal(50)))
    cell = next(cell for cell in found.cells if (cell.arm, cell.label) == ("go", "SMALL"))
    (log_bytes,) = {row.log_bytes for row in rows if (row.arm, row.label) == ("go", "SMALL")}
    assert log_bytes
    assert cell.month is not None
    assert cell.execution.logs_usd == 0
    gb = Decimal(50 * 2_628_000 * log_bytes) / 2**30
    assert gb > 1
    assert cell.month.logs_usd == (gb - 1) * 2, "the first GB is free, and what is above is not"


def test_a_sheet_of_zeros_is_a_bill_of_zeros() -> None:
    sheet = msgspec.convert(_all_zero(msgspec.to_builtins(PRICES, builtin_types=(Decimal,))), PriceSheet)
    rows = join(MANIFEST, RESULTS, observe([line for result in RESULTS for line in make_lines(result)]), sheet)
    found = bill_of_run(MANIFEST, RESULTS, rows, sheet, Terms(per_month=Decimal(50), free_tier=True, tracing=True))
    assert {cell.execution_usd for cell in found.cells} == {Decimal(0)}
    assert {cell.million_items_usd for cell in found.cells} == {Decimal(0)}
    assert {cell.month_usd for cell in found.cells} == {Decimal(0)}


def _all_zero(prices: Any) -> Any:
    """The same sheet, at which everything costs nothing."""
    if isinstance(prices, dict):
        return {name: _all_zero(value) for name, value in prices.items()}
    return (
        Decimal(0)
        if isinstance(prices, Decimal)
        else [_all_zero(p) for p in prices]
        if isinstance(prices, list)
        else prices
    )


def test_a_record_with_a_mode_that_there_is_not_ends_no_bill() -> None:
    lines = [
        line
        for result in RESULTS
        for line in make_lines(result, record_line(result, mode="turbo"), render_report(make_report(result)))
    ]
    rows = join(MANIFEST, RESULTS, observe(lines), PRICES)
    found = bill_of_run(MANIFEST, RESULTS, rows, PRICES, Terms(per_month=Decimal(1)))
    assert {(cell.n, cell.month) for cell in found.cells} == {(0, None)}
