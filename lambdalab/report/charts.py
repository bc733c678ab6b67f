"""Figures as SVG, drawn by Vega-Lite when the report is written: nothing is left to compute where it is read.

Colours are CSS variables of the page, so that one drawing serves light, dark and paper. Every panel is as wide as a
phone; the page lays them side by side where there is room. An arm has a colour and a shape of its own.
"""

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any, Final

Spec = dict[str, Any]
Record = dict[str, Any]

WIDTH: Final = 340
ARM_COLOURS: Final = 7
SHAPES: Final = (
    "circle",
    "triangle-up",
    "square",
    "diamond",
    "cross",
    "triangle-down",
    "triangle-right",
    "triangle-left",
)
"""As many as are prime to the number of colours, so that pairs repeat after 56 arms."""
_BAND: Final = 46
_LABEL_LIMIT: Final = 130
_LETTER: Final = 7.2
"""Width of a letter of a label in the widest of the fonts that readers have; which one is known only there."""
_INK, _MUTED, _RULE, _PAPER = "var(--ink)", "var(--muted)", "var(--rule)", "var(--paper)"
_CONFIG: Final[Spec] = {
    "aria": False,  # the page gives every figure its text and its table
    "background": None,
    "font": "system-ui, sans-serif",
    "axis": {
        "labelColor": _INK,
        "titleColor": _INK,
        "tickColor": _MUTED,
        "domainColor": _MUTED,
        "gridColor": _RULE,
        "labelFontSize": 11,
        "titleFontSize": 11,
        "titleFontWeight": "normal",
        "labelLimit": _LABEL_LIMIT,
        "labelOverlap": "greedy",
        "labelSeparation": 8,
    },
    "legend": {
        "labelColor": _INK,
        "labelFontSize": 11,
        "labelLimit": 150,
        "orient": "top",
        "title": None,
        "columns": 2,
        "symbolOpacity": 1,
    },
    "view": {"stroke": None},
}


def draw(spec: Spec) -> str:
    """Renders a figure; no file and no network is read. It is hidden from screen readers, who get the page's text."""
    import vl_convert  # here, because it starts a JavaScript engine and most commands never need it

    svg: str = vl_convert.vegalite_to_svg({"config": _CONFIG, **spec}, vl_version="6.1", allowed_base_urls=[])
    return svg.replace("<svg ", '<svg aria-hidden="true" ', 1)


def samples(arms: Sequence[str], points: Iterable[Record], cells: Iterable[Record], title: str) -> Spec:
    """Every sample of every arm, a line of points per block, over quartiles (box), median (line) and interval (band).

    Args:
        arms: names, in the order they are shown.
        points: ``arm``, ``block``, ``value``.
        cells: ``arm``, ``median``, ``low``, ``high``, ``q1``, ``q3``.
        title: of the axis, with its unit.
    """
    height = _BAND * len(arms)
    y = _names("arm", arms)
    x = {"type": "quantitative", "title": title, "scale": {"zero": False, "nice": True}, "axis": {"tickCount": 4}}
    cells = list(cells)
    return _panel(
        height,
        _layer(
            [cell for cell in cells if cell["low"] is not None],
            {"type": "bar", "opacity": 0.22, "size": _BAND - 6},
            x=x | {"field": "low"},
            x2={"field": "high"},
            y=y,
            color=_arm_colour(arms),
        ),
        _layer(
            cells,
            {"type": "bar", "filled": False, "strokeWidth": 1, "size": _BAND - 6},
            x=x | {"field": "q1"},
            x2={"field": "q3"},
            y=y,
            color=_arm_colour(arms),
        ),
        _layer(
            cells,
            {"type": "tick", "thickness": 2, "size": _BAND - 6, "color": _INK},
            x=x | {"field": "median"},
            y=y,
        ),
        _layer(
            points,
            {"type": "point", "filled": True, "size": 30, "opacity": 0.9, "stroke": _PAPER, "strokeWidth": 0.5},
            x=x | {"field": "value"},
            y=y,
            yOffset={"field": "block", "type": "ordinal", "scale": {"paddingOuter": 2}},
            color=_arm_colour(arms),
            shape=_arm_shape(arms),
        ),
    )


def curves(arms: Sequence[str], points: Iterable[Record], title: str) -> Spec:
    """Empirical distribution functions.

    Args:
        arms: names, in the order they are shown.
        points: ``arm``, ``value`` and ``share``, the share of samples that are not larger.
        title: of the axis, with its unit.
    """
    return _panel(
        200,
        _layer(
            points,
            {"type": "line", "interpolate": "step-after", "strokeWidth": 2},
            x={"field": "value", "type": "quantitative", "title": title, "scale": {"zero": False}},
            y={"field": "share", "type": "quantitative", "title": "share of samples", "axis": {"format": "%"}},
            color=_arm_colour(arms, legend=True),
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
        _layer(
            blocks, {"type": "rect", "color": _RULE, "opacity": 0.45}, x=x | {"field": "begin"}, x2={"field": "end"}
        ),
        _layer(
            medians,
            {"type": "rule", "strokeDash": [4, 3], "opacity": 0.8},
            y=y | {"field": "median"},
            color=_arm_colour(arms, legend=True),
        ),
        _layer(
            [point for point in points if point["valid"]],
            {"type": "point", "filled": True, "size": 34, "opacity": 1},
            x=x | {"field": "position"},
            y=y | {"field": "value"},
            color=_arm_colour(arms, legend=True),
            shape=_arm_shape(arms, legend=True),
        ),
    ]
    invalid = [point for point in points if not point["valid"]]
    if invalid:
        layers.append(
            _layer(
                invalid,
                {"type": "text", "text": "✕", "fontSize": 13, "fontWeight": "bold", "color": "var(--bad)"},
                x=x | {"field": "position"},
                y=y | {"field": "value"},
            )
        )
    return _panel(200, *layers)


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
    colour = _arm_colour(arms, legend=True)
    return _panel(
        200,
        _layer(
            records, {"type": "area", "opacity": 0.2}, x=x, y=y | {"field": "low"}, y2={"field": "high"}, color=colour
        ),
        _layer(
            records,
            {"type": "line", "strokeWidth": 1.5, "point": {"size": 18}},
            x=x,
            y=y | {"field": "median"},
            color=colour,
            shape=_arm_shape(arms, legend=True),
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
        "y": _names("metric", metrics),
        "yOffset": {"field": "arm", "type": "nominal", "sort": list(arms), "scale": {"domain": list(arms)}},
        "color": _arm_colour(arms, legend=True),
    }
    return _panel(
        height,
        _layer(
            records,
            {"type": "rule", "strokeWidth": 1},
            x=x | {"field": "minimum"},
            x2={"field": "maximum"},
            **shared,
        ),
        _layer(
            [record for record in records if record["low"] is not None],
            {"type": "rule", "strokeWidth": 5, "opacity": 0.45},
            x=x | {"field": "low"},
            x2={"field": "high"},
            **shared,
        ),
        _layer(
            records,
            {"type": "point", "filled": True, "size": 55, "opacity": 1, "stroke": _PAPER, "strokeWidth": 1},
            x=x | {"field": "median"},
            shape=_arm_shape(arms, legend=True),
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
    return _panel(
        34 * len(arms),
        _layer(
            [record | {"value": _number(record["value"])} for record in records],
            {"type": "bar", "stroke": _PAPER, "strokeWidth": 1.5},
            x={"field": "value", "type": "quantitative", "title": title, "stack": "zero", "axis": {"tickCount": 4}},
            y=_names("arm", arms),
            color={
                "field": "part",
                "type": "nominal",
                "sort": list(parts),
                "scale": {"domain": list(parts), "range": [f"var(--part-{i})" for i in range(len(parts))]},
                "legend": {"columns": len(parts), "symbolType": "square"},
            },
            order={"field": "position", "type": "quantitative"},
        ),
    )


def _number(value: Decimal | float) -> float:
    return float(value)


def _panel(height: int, *layers: Spec) -> Spec:
    return {
        "width": WIDTH,
        "height": height,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "padding": {"left": 2, "right": 10, "top": 4, "bottom": 4},
        "layer": list(layers),
    }


def _layer(records: Iterable[Record], mark: Spec, **encoding: Spec) -> Spec:
    return {"data": {"values": list(records)}, "mark": mark, "encoding": encoding}


def _names(field: str, names: Sequence[str]) -> Spec:
    """An axis of names, in their order, with room for them in any font."""
    room = min(_LETTER * max(map(len, names), default=0), _LABEL_LIMIT) + 4
    axis = {"ticks": False, "domain": False, "minExtent": room}
    return {"field": field, "type": "nominal", "sort": list(names), "title": None, "axis": axis}


def _arm_colour(arms: Sequence[str], *, legend: bool = False) -> Spec:
    colours = [f"var(--arm-{i % ARM_COLOURS})" for i in range(len(arms))]
    return _of_arm(arms, colours, legend=legend)


def _arm_shape(arms: Sequence[str], *, legend: bool = False) -> Spec:
    return _of_arm(arms, [SHAPES[i % len(SHAPES)] for i in range(len(arms))], legend=legend)


def _of_arm(arms: Sequence[str], scale_range: list[str], *, legend: bool) -> Spec:
    found: Spec = {"field": "arm", "type": "nominal", "scale": {"domain": list(arms), "range": scale_range}}
    return found if legend else found | {"legend": None}
