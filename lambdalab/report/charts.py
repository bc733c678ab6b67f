"""The report's figures, as Vega-Lite specifications."""

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Final

from lambdalab.report.drawing import (
    INK,
    MUTED,
    PAPER,
    RULE,
    Record,
    Spec,
    arm_colour,
    arm_shape,
    layer,
    names_axis,
    panel,
)

_BAND: Final = 46
MARKS: Final = {"▲": "triangle-up", "▼": "triangle-down", "■": "square", "○": "circle", "·": "circle"}
"""The marks of verdicts, and what they are called where they are drawn."""


def samples(arms: Sequence[str], points: Iterable[Record], cells: Iterable[Record], title: str) -> Spec:
    """Every sample of every arm, a line of points per block, over quartiles (box), median (line) and interval (band).

    Args:
        arms: names, in the order they are shown.
        points: ``arm``, ``block``, ``value``.
        cells: ``arm``, ``median``, ``low``, ``high``, ``q1``, ``q3``.
        title: of the axis, with its unit.
    """
    height = _BAND * len(arms)
    y = names_axis("arm", arms)
    x = {"type": "quantitative", "title": title, "scale": {"zero": False, "nice": True}, "axis": {"tickCount": 4}}
    cells = list(cells)
    return panel(
        height,
        layer(
            [cell for cell in cells if cell["low"] is not None],
            {"type": "bar", "opacity": 0.22, "size": _BAND - 6},
            x=x | {"field": "low"},
            x2={"field": "high"},
            y=y,
            color=arm_colour(arms),
        ),
        layer(
            cells,
            {"type": "bar", "filled": False, "strokeWidth": 1, "size": _BAND - 6},
            x=x | {"field": "q1"},
            x2={"field": "q3"},
            y=y,
            color=arm_colour(arms),
        ),
        layer(
            cells,
            {"type": "tick", "thickness": 2, "size": _BAND - 6, "color": INK},
            x=x | {"field": "median"},
            y=y,
        ),
        layer(
            points,
            {"type": "point", "filled": True, "size": 30, "opacity": 0.9, "stroke": PAPER, "strokeWidth": 0.5},
            x=x | {"field": "value"},
            y=y,
            yOffset={"field": "block", "type": "ordinal", "scale": {"paddingOuter": 2}},
            color=arm_colour(arms),
            shape=arm_shape(arms),
        ),
    )


def curves(arms: Sequence[str], points: Iterable[Record], title: str) -> Spec:
    """Empirical distribution functions.

    Args:
        arms: names, in the order they are shown.
        points: ``arm``, ``value`` and ``share``, the share of samples that are not larger.
        title: of the axis, with its unit.
    """
    return panel(
        200,
        layer(
            points,
            {"type": "line", "interpolate": "step-after", "strokeWidth": 2},
            x={"field": "value", "type": "quantitative", "title": title, "scale": {"zero": False}},
            y={"field": "share", "type": "quantitative", "title": "share of samples", "axis": {"format": "%"}},
            color=arm_colour(arms, legend=True),
            strokeDash={
                "field": "arm",
                "type": "nominal",
                "legend": {},
                "scale": {"domain": list(arms), "range": [[1 + 4 * i, 2 * i] for i in range(len(arms))]},
            },
        ),
    )


def order(
    arms: Sequence[str], points: Iterable[Record], blocks: Iterable[Record], medians: Iterable[Record], title: str
) -> Spec:
    """Samples in the order of execution, with every other block shaded and the arms' medians as lines.

    Args:
        arms: names, in the order they are shown.
        points: ``arm``, ``position`` from 1, ``value`` and ``valid``.
        blocks: ``begin`` and ``end`` of the blocks to shade, in positions.
        medians: ``arm`` and ``median``.
        title: of the axis, with its unit.
    """
    points = list(points)
    x = {
        "type": "quantitative",
        "title": "order of execution, every other block shaded",
        "axis": {"grid": False, "tickCount": 6},
        "scale": {"nice": False, "domainMin": 0.5},
    }
    y = {"type": "quantitative", "title": title, "scale": {"zero": False}, "axis": {"tickCount": 4}}
    layers = [
        layer(blocks, {"type": "rect", "color": RULE, "opacity": 0.45}, x=x | {"field": "begin"}, x2={"field": "end"}),
        layer(
            medians,
            {"type": "rule", "strokeDash": [4, 3], "opacity": 0.8},
            y=y | {"field": "median"},
            color=arm_colour(arms, legend=True),
        ),
        layer(
            [point for point in points if point["valid"]],
            {"type": "point", "filled": True, "size": 34, "opacity": 1},
            x=x | {"field": "position"},
            y=y | {"field": "value"},
            color=arm_colour(arms, legend=True),
            shape=arm_shape(arms, legend=True),
        ),
    ]
    invalid = [point for point in points if not point["valid"]]
    if invalid:
        layers.append(
            layer(
                invalid,
                {"type": "text", "text": "✕", "fontSize": 13, "fontWeight": "bold", "color": "var(--bad)"},
                x=x | {"field": "position"},
                y=y | {"field": "value"},
            )
        )
    return panel(200, *layers)


def stretches(arms: Sequence[str], records: Iterable[Record], title: str) -> Spec:
    """Medians and extremes of neighbouring blocks, over the run.

    Args:
        arms: names, in the order they are shown.
        records: ``arm``, ``block`` (the first), ``median``, ``low`` and ``high``.
        title: of the axis, with its unit.
    """
    records = list(records)
    x = {"field": "block", "type": "quantitative", "title": "block", "scale": {"zero": False}, "axis": {"grid": False}}
    y = {"type": "quantitative", "title": title, "scale": {"zero": False}}
    colour = arm_colour(arms, legend=True)
    return panel(
        200,
        layer(
            records, {"type": "area", "opacity": 0.2}, x=x, y=y | {"field": "low"}, y2={"field": "high"}, color=colour
        ),
        layer(
            records,
            {"type": "line", "strokeWidth": 1.5, "point": {"size": 18}},
            x=x,
            y=y | {"field": "median"},
            color=colour,
            shape=arm_shape(arms, legend=True),
        ),
    )


def estimates(arms: Sequence[str], metrics: Sequence[str], records: Iterable[Record], title: str) -> Spec:
    """Medians with their intervals (thick) and extremes (thin), metric by metric.

    Args:
        arms: names, in the order they are shown.
        metrics: what was measured, in the order it is shown.
        records: ``arm``, ``metric``, ``median``, ``low``, ``high``, ``minimum``, ``maximum``.
        title: of the axis, with its unit.
    """
    records = list(records)
    height = len(metrics) * (20 + 16 * len(arms))
    x = {"type": "quantitative", "title": title, "axis": {"tickCount": 4}}
    shared: Spec = {
        "y": names_axis("metric", metrics),
        "yOffset": {"field": "arm", "type": "nominal", "sort": list(arms), "scale": {"domain": list(arms)}},
        "color": arm_colour(arms, legend=True),
    }
    return panel(
        height,
        layer(
            records,
            {"type": "rule", "strokeWidth": 1},
            x=x | {"field": "minimum"},
            x2={"field": "maximum"},
            **shared,
        ),
        layer(
            [record for record in records if record["low"] is not None],
            {"type": "rule", "strokeWidth": 5, "opacity": 0.45},
            x=x | {"field": "low"},
            x2={"field": "high"},
            **shared,
        ),
        layer(
            records,
            {"type": "point", "filled": True, "size": 55, "opacity": 1, "stroke": PAPER, "strokeWidth": 1},
            x=x | {"field": "median"},
            shape=arm_shape(arms, legend=True),
            **shared,
        ),
    )


def stack(arms: Sequence[str], parts: Sequence[str], records: Iterable[Record], title: str) -> Spec:
    """Parts of a sum, one bar for each arm.

    Args:
        arms: names, in the order they are shown.
        parts: names of the components, from the left.
        records: ``arm``, ``part``, ``position`` of the part, ``value``.
        title: of the axis, with its unit.
    """
    return panel(
        34 * len(arms),
        layer(
            [record | {"value": _number(record["value"])} for record in records],
            {"type": "bar", "stroke": PAPER, "strokeWidth": 1.5},
            x={"field": "value", "type": "quantitative", "title": title, "stack": "zero", "axis": {"tickCount": 4}},
            y=names_axis("arm", arms),
            color={
                "field": "part",
                "type": "nominal",
                "sort": list(parts),
                "scale": {"domain": list(parts), "range": [f"var(--part-{i})" for i in range(len(parts))]},
                "legend": {"columns": 3, "symbolType": "square", "columnPadding": 24},
            },
            order={"field": "position", "type": "quantitative"},
        ),
    )


def ratios(records: Iterable[Record], margin: float, title: str) -> Spec:
    """Ratios with their intervals around 1, the margin on both sides shaded.

    Args:
        records: in the order they are shown, ``name``, ``ratio``, ``low`` and ``high``, which may be None, and
            ``mark``, one of ``MARKS``.
        margin: the smallest change that matters, as a share.
        title: of the axis.
    """
    records = list(records)
    names = [record["name"] for record in records]
    x = {
        "type": "quantitative",
        "title": title,
        "scale": {"type": "log", "nice": False, "padding": 8},
        "axis": {"tickCount": 5, "format": "~g", "grid": False},
    }
    y = names_axis("name", names)
    shaded = layer([{"margin": margin}], {"type": "rect", "color": RULE, "opacity": 0.8}) | {
        "transform": [
            {"calculate": "1 / (1 + datum.margin)", "as": "begin"},
            {"calculate": "1 + datum.margin", "as": "end"},
        ],
        "encoding": {"x": x | {"field": "begin"}, "x2": {"field": "end"}},
    }
    return panel(
        30 * len(names),
        shaded,
        layer([{"one": 1}], {"type": "rule", "color": MUTED, "strokeDash": [3, 3]}, x=x | {"field": "one"}),
        layer(
            [record for record in records if record["low"] is not None],
            {"type": "rule", "strokeWidth": 5, "opacity": 0.45, "color": "var(--arm-0)"},
            x=x | {"field": "low"},
            x2={"field": "high"},
            y=y,
        ),
        layer(
            records,
            {"type": "point", "opacity": 1, "color": INK, "strokeWidth": 1.5},
            x=x | {"field": "ratio"},
            y=y,
            size={"condition": {"test": "datum.mark === '·'", "value": 14}, "value": 70},
            shape={"field": "mark", "scale": {"domain": list(MARKS), "range": list(MARKS.values())}, "legend": None},
            fill={
                "condition": {"test": "datum.mark === '○'", "value": PAPER},
                "value": INK,
            },
        ),
    )


def front(arms: Sequence[str], records: Iterable[Record]) -> Spec:
    """Cost against latency, medians with their intervals, the settings that no other beats joined by a line.

    Args:
        arms: names, in the order they are shown.
        records: ``arm``, ``on_front``, and ``ms`` and ``usd``, each with ``_low`` and ``_high``, which may be None.
    """
    records = list(records)
    scale = {"zero": False, "nice": True}
    x = {"type": "quantitative", "title": "Duration in ms", "scale": scale, "axis": {"tickCount": 5}}
    y = {
        "type": "quantitative",
        "title": "USD per million messages",
        "scale": scale,
        "axis": {"tickCount": 5, "titlePadding": 16},
    }
    at_x, at_y, colour = x | {"field": "ms"}, y | {"field": "usd"}, arm_colour(arms, legend=True)
    known = [record for record in records if record["ms_low"] is not None and record["usd_low"] is not None]
    bar = {"type": "rule", "strokeWidth": 3, "opacity": 0.4}
    return panel(
        240,
        layer(
            [record for record in records if record["on_front"]],
            {"type": "line", "color": MUTED, "strokeDash": [4, 3], "strokeWidth": 1.5},
            x=at_x,
            y=at_y,
            order={"field": "ms", "type": "quantitative"},
        ),
        layer(known, bar, x=x | {"field": "ms_low"}, x2={"field": "ms_high"}, y=at_y, color=colour),
        layer(known, bar, x=at_x, y=y | {"field": "usd_low"}, y2={"field": "usd_high"}, color=colour),
        layer(
            records,
            {"type": "point", "filled": True, "size": 60, "opacity": 1},
            x=at_x,
            y=at_y,
            color=colour,
            shape=arm_shape(arms, legend=True),
        ),
    )


def steps(
    names: Sequence[str], rates: Iterable[Record], backlogs: Iterable[Record], knee: str | None, most: int
) -> Spec:
    """Rates of a load run step by step, as lines, over the backlog at the end of each step, as bars.

    Args:
        names: of the steps, in their order.
        rates: ``step``, ``what`` (``offered`` or ``achieved``) and ``value`` in messages/s.
        backlogs: ``step``, ``what`` (``backlog``) and ``value`` in messages.
        knee: the first step that did not keep up.
        most: the largest backlog of all such figures, which share its axis.
    """
    x = {"field": "step", "type": "nominal", "sort": list(names), "title": "step", "axis": {"labelAngle": 0}}
    colour = {
        "field": "what",
        "type": "nominal",
        "scale": {"domain": ["offered", "achieved", "backlog"], "range": [INK, "var(--arm-0)", "var(--arm-1)"]},
        "legend": {"columns": 3},
    }
    y = {"field": "value", "type": "quantitative"}
    axis = {"tickCount": 4, "titlePadding": 14}
    rates = list(rates)
    lines = {
        "layer": [
            layer(
                [record for record in rates if record["what"] == what],
                {"type": "line", "strokeWidth": 2, "strokeDash": dash, "point": {"size": 45, "shape": shape}},
                x=x,
                y=y | {"title": "messages/s", "axis": axis},
                color=colour,
            )
            for what, dash, shape in (("offered", [5, 3], "square"), ("achieved", [1, 0], "circle"))
        ]
    }
    right = y | {
        "title": "backlog in messages",
        "axis": axis | {"orient": "right", "grid": False, "tickMinStep": 1},
        "scale": {"domain": [0, max(most, 1)], "nice": True},
    }
    layers = [layer(backlogs, {"type": "bar", "opacity": 0.35}, x=x, y=right, color=colour), lines]
    if knee is not None:
        layers.insert(0, layer([{"step": knee}], {"type": "rule", "color": "var(--bad)", "strokeDash": [3, 3]}, x=x))
    return panel(200, *layers) | {"resolve": {"scale": {"y": "independent"}}}


def _number(value: Decimal | float) -> float:
    return float(value)
