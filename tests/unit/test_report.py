"""What a person sees: the same text for the same summary, and no number that summary.json does not hold."""

import io
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from rich.console import Console
from samples import NUMBER, PRICES, make_lines, make_manifest, make_report, make_results, record_line, values_in

from lambdalab.analysis.message_analysis import Summary, summarise
from lambdalab.analysis.message_rows import join
from lambdalab.logs.observations import observe
from lambdalab.logs.platform_lines import render_report
from lambdalab.records.trials import LogLine
from lambdalab.report.answer import NO_LAMBDA_INIT, money, time
from lambdalab.report.layout import print_whole
from lambdalab.report.status import render_status
from lambdalab.report.terminal import show
from lambdalab.report.words import usd

GOLDEN = """\
20261121-100000-ingest-abcd
ingest, protocol tiny, 6 blocks, target local, 128 MB, x86_64, cpu_limit: cgroup v2
ended by: all blocks done

Warm work: too few blocks to compare Go and Python for SMALL.
First invocation: too few blocks to compare Go and Python for WARMUP.
Cost: too few blocks to compare Go and Python for SMALL.
Cold start: Init 500 ms for Python and 50 ms for Go. Lambda's own part of Init is missing here (a Go hello-world inits
in about 40 ms on Lambda), so this is not the ratio on Lambda.
Memory: peak 56 MB for Python and 56 MB for Go, of 128 MB.
Not known yet: the times on AWS (these are this machine's); what is inconclusive (about 8 blocks would decide).

Ratios of medians; p adjusted for all of them; n: blocks; A/A: resolved difference
load     compared    what         ratio [95% interval]   p (Holm)   n   A/A   verdict
──────────────────────────────────────────────────────────────────────────────────────────
WARMUP   python/go   duration     3.981 [3.980, 3.983]     0.1250   6     -   inconclusive
                     billed       8.869 [8.869, 8.885]          -   6     -   not judged
                     init         9.993 [9.993, 9.993]     0.1250   6     -   inconclusive
                     end to end   1.000 [1.000, 1.000]          -   6     -   not judged
                     cost         1.330 [1.330, 1.331]          -   6     -   not judged
SMALL    python/go   duration                    4.000          -   5     -   inconclusive
                     billed                      3.997          -   5     -   not judged
                     end to end                  1.000          -   5     -   not judged
                     cost                        1.049          -   5     -   inconclusive
Verdict: inconclusive in all 4 comparisons; about 8 blocks would decide, there are 5
changes under 2.5% are ignored
inconclusive: about 8 blocks would decide, by duration of WARMUP, where there are 6

Duration in ms: median, its 95% interval, extremes
load     arm      valid    median            interval       min       max
─────────────────────────────────────────────────────────────────────────
WARMUP   python     6/6      40.8         40.1 - 41.6      40.1      41.6
         go         6/6      10.2         10.1 - 10.4      10.1      10.4
SMALL    python     6/6   4,075.1   4,000.1 - 4,150.1   4,000.1   4,150.1
         go         5/6   1,015.1                none   1,000.1   1,030.1

Other times in ms: medians
load     arm       Init    Billed   queue wait   end to end
───────────────────────────────────────────────────────────
WARMUP   python   500.0     541.0         60.0         80.0
         go        50.0      61.0         60.0         80.0
SMALL    python       -   4,076.0         60.0         80.0
         go           -   1,016.0         60.0         80.0

Peak memory; medians of write units and cost, prices of us-east-1 2026-11-20
load     arm      peak MB   units   USD/execution      USD/item
───────────────────────────────────────────────────────────────
WARMUP   python        56       2     0.000004050   0.000004050
         go            56       2     0.000003045   0.000003045
SMALL    python        56     200       0.0001352   0.000001352
         go            56     200       0.0001288   0.000001288

REPORT lines 24/24, items 1,212/1,212, valid samples 23/24
caution: local times: they describe this machine and are not comparable with AWS times
caution: 5 blocks find no difference, however large: 4 comparisons need at least 8
caution: 1 of 4 cells have fewer than 6 valid samples, so their medians have no 95% interval
caution: 1 of 24 samples are not valid
  1 x received 2 times
samples for a median within 5 %: python WARMUP 10, go WARMUP 10, python SMALL 10
"""


def make_summary(blocks: int = 6) -> Summary:
    """Python four times as slow as Go, every block a little slower than the one before, and one message redelivered."""
    manifest = make_manifest(blocks=blocks)
    results = make_results(manifest)
    lines: list[LogLine] = []
    last = max(
        (r for r in results if (r.trial.arm, r.trial.load.label) == ("go", "SMALL")), key=lambda r: r.trial.block
    )
    for result in results:
        cold = result.trial.load.label == "WARMUP"
        factor = 4 if result.trial.arm == "python" else 1
        duration_ms = round((10 if cold else 1000) * factor * (1 + (result.trial.block - 1) * 0.0075) + 0.06, 2)
        init_ms = {"python": 500.04, "go": 50.04}[result.trial.arm] if cold else None
        report = make_report(
            result, duration_ms=duration_ms, init_ms=init_ms, billed_ms=-int(-(duration_ms + (init_ms or 0)) // 1)
        )
        record = record_line(result, receive_count=2 if result is last else 1)
        lines += make_lines(result, record, render_report(report))
    observed = observe(lines)
    return summarise(manifest, results, join(manifest, results, observed, PRICES))


def shown(summary: Summary, width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False, markup=False)
    show(summary, console)
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines()) + "\n"


def test_the_text_is_always_the_same() -> None:
    assert shown(make_summary()) == GOLDEN


@pytest.mark.parametrize("width", [100, 120])
def test_tables_are_never_cut_and_titles_never_wrap(width: int) -> None:
    text = shown(make_summary(), width)
    assert "…" not in text
    assert max(len(line) for line in text.splitlines()) <= width
    begin = text.index("Ratios of medians")
    end = text.index("REPORT lines")
    assert text[begin:end] == GOLDEN[GOLDEN.index("Ratios of medians") : GOLDEN.index("REPORT lines")]


def test_a_terminal_that_is_too_narrow_costs_no_digit() -> None:
    def rows(width: int) -> list[str]:
        text = shown(make_summary(), width)
        tables = text[text.index("Ratios of medians") : text.index("REPORT lines")]
        return [line for line in tables.splitlines() if re.search(r"(^|  )python|python/go|  go  ", line)]

    assert rows(40) == rows(120)


def test_the_result_is_said_first_and_an_invalid_run_before_it() -> None:
    summary = make_summary()
    assert shown(summary).splitlines()[4] == "Warm work: too few blocks to compare Go and Python for SMALL."
    invalid = msgspec.structs.replace(summary, faults=("no valid sample of go SMALL",))
    assert shown(invalid).splitlines()[3] == "invalid run: no valid sample of go SMALL"


CLAIMS = re.compile(r"signific|faster|slower|better|worse|cheaper|expensive|regress|improve")


def test_six_blocks_claim_nothing_and_ten_do() -> None:
    assert not CLAIMS.search(shown(make_summary()))
    text = shown(make_summary(10))
    assert "Warm work: Go is 4.0x faster than Python (SMALL 1.03 s against 4.12 s).\n" in text
    assert re.search(r"SMALL +python/go +duration +4\.0\d\d \[\d\.\d{3}, \d\.\d{3}\] +0\.0\d+ +9 +- +slower", text)


def test_what_was_not_measured_is_a_dash() -> None:
    text = shown(summarise(make_manifest(), [], []))
    assert "Verdict: inconclusive in all 4 comparisons\n" in text
    (row,) = [line.split() for line in text.splitlines() if re.match(r"WARMUP +python +0/0", line)]
    assert row == ["WARMUP", "python", "0/0", "-", "-", "-", "-"]
    assert "invalid run: only 0 of 4 trials were run" in text


def test_one_arm_has_no_ratios() -> None:
    manifest = make_manifest(arms=("go",))
    results = make_results(manifest)
    rows = join(manifest, results, observe(line for result in results for line in make_lines(result)), PRICES)
    text = shown(summarise(manifest, results, rows))
    assert "times as" not in text
    assert "/go" not in text


def test_brackets_in_what_others_wrote_are_shown_as_they_are() -> None:
    odd = "the function reported X: [red]no[/red] [0] [/]"
    summary = msgspec.structs.replace(make_summary(), invalid_reasons={odd: 1}, cautions=(odd,), run_id="a[b]c")
    console = Console(file=io.StringIO(), width=120)  # with markup, as any caller's console has it
    show(summary, console)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert text.count("[red]no[/red] [0] [/]") == 2
    assert text.startswith("a[b]c")


def numbers_in(summary: Summary) -> Iterator[str]:
    """Every number of a summary as text, in each way a report may write it."""
    for value in values_in(summary):
        match value:
            case int():
                yield from (f"{value}", f"{value:,}", f"{value:,.1f}")
            case float():
                yield from (f"{value:,.1f}", f"{value:.2f}", f"{value:,g}", f"{value:.0%}".rstrip("%"))
                yield from (f"{value:.3f}", f"{value:.4f}", f"{value:.1%}".rstrip("%"))
                yield from (time(value).split()[0], money(value), f"{value:.1f}")
            case str() if re.fullmatch(r"\d+\.\d{18,}", value):
                amount = Decimal(value)
                yield f"{amount:.{3 - amount.adjusted()}f}"
            case str():
                yield from NUMBER.findall(value)


def underivable(text: str, summary: Summary) -> set[str]:
    return set(NUMBER.findall(text)) - set(numbers_in(summary)) - set(NUMBER.findall(NO_LAMBDA_INIT))


def test_every_number_shown_is_in_summary_json() -> None:
    summary = make_summary(blocks=7)
    text = shown(summary)
    assert len(NUMBER.findall(text)) > 80
    assert underivable(text, summary) == set()
    assert underivable(text + " 4,321.0", summary) == {"4,321.0"}, "the test sees a number of the report's own"


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (None, "-"),
        (Decimal(0), "0"),
        (Decimal("0.000000000123456"), "0.0000000001235"),
        (Decimal("0.0001287540"), "0.0001288"),
        (Decimal("0.004071"), "0.004071"),
        (Decimal("1.5"), "1.500"),
        (Decimal("12345.678"), "12345.68"),
    ],
)
def test_money_has_four_significant_digits(amount: Decimal | None, text: str) -> None:
    assert usd(amount) == text


COUNTS = (
    "environments",
    "idle",
    "in_flight",
    "cold_starts",
    "warm_invocations",
    "errors",
    "timeouts",
    "crashes",
    "resets",
    "throttles",
)


def test_the_state_of_a_local_stack() -> None:
    function = {
        "runtime": "python3.12",
        "memory_mb": 128,
        "reserved_concurrency": None,
        "concurrency_limit": 1000,
        **{name: number for number, name in enumerate(COUNTS, 1)},
    }
    console = Console(file=io.StringIO(), width=60)
    status: dict[str, Any] = {
        "stack_name": "lab",
        "cpu_limit": "none",
        "latency": None,
        "log_lines_dropped": 0,
        "not_followed": [],
        "not_run": [],
        "functions": {"lab-python": function, "lab-go": function | {"reserved_concurrency": 3, "concurrency_limit": 3}},
        "mappings": {},
    }
    print_whole(console, render_status("http://127.0.0.1:4566", "http://127.0.0.1:4567", status))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "lost" not in text
    lines = text.splitlines()
    heading = " ".join(line.strip() for line in lines[:2])
    assert heading == "lab: emulator http://127.0.0.1:4566, plane http://127.0.0.1:4567, cpu_limit: none"
    counts = [str(number) for number in range(1, len(COUNTS) + 1)]
    assert lines[-3].split() == ["lab-python", "python3.12", "128", "MB", "1000", "unreserved", *counts]
    assert lines[-2].split() == ["lab-go", "python3.12", "128", "MB", "3", "reserved", *counts]


def test_the_state_of_pollers_and_of_lost_lines() -> None:
    mapping = {"batch_size": 10, "receives": 7, "empty_receives": 5, "failed_batches": 1, "throttles": 2, "new": 9}
    status: dict[str, Any] = {
        "stack_name": "lab",
        "cpu_limit": "none",
        "latency": None,
        "log_lines_dropped": 4,
        "not_followed": ["lab-go cannot be followed now: it wants python2.7"],
        "not_run": ["SNS subscription News does not run here"],
        "functions": {},
        "mappings": {"lab-python": mapping},
    }
    console = Console(file=io.StringIO(), width=60)
    print_whole(console, render_status("e", "p", status))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert ["lab-python", "10", "7", "5", "1", "2"] in [line.split() for line in text.splitlines()]
    assert "4 log lines are lost: the log service did not take them" in text.replace("\n", " ")
    assert "lab-go cannot be followed now: it wants python2.7" in text.replace("\n", " ")
    assert "SNS subscription News does not run here" in text
    assert "caution" not in text


def test_the_state_of_a_stack_that_nothing_limits_and_whose_queues_are_slow() -> None:
    status: dict[str, Any] = {
        "stack_name": "lab",
        "cpu_limit": "none",
        "cpu_limit_why": "no control group can be written",
        "slow_queues": "its SQS is another",
        "latency": None,
        "log_lines_dropped": 0,
        "not_followed": [],
        "not_run": [],
        "functions": {},
        "mappings": {},
    }
    console = Console(file=io.StringIO(), width=300)
    print_whole(console, render_status("e", "p", status))
    assert isinstance(console.file, io.StringIO)
    unlimited, slow = (line.strip() for line in console.file.getvalue().splitlines() if "caution" in line)
    assert unlimited == (
        "caution: nothing limits CPU and memory, because no control group can be written: functions get whole cores "
        "and all memory, so times do not depend on the memory size; run as root, or with "
        "`systemd-run --user --scope -p Delegate=yes` under cgroup v2"
    )
    assert (
        slow == "caution: queues slow down with their backlog: its SQS is another; `lambdalab doctor` says what to do"
    )
