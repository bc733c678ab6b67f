"""The figures of a factorial run, as Vega-Lite specifications."""

from collections.abc import Iterable, Sequence
from typing import Final

from lambdalab.report.drawing import INK, MUTED, PAPER, Record, Spec, arm_colour, arm_shape, layer, names_axis, panel

_BAND: Final = 22
_NAMES: Final = 190
"""Room for the names of two factors."""


def main_effects(names: Sequence[str], factors: Sequence[str], records: Iterable[Record], title: str) -> Spec:
    """Means at each level of each factor with their intervals, those of a factor joined by a line.

    Args:
        names: of the levels with their factors, in the order they are shown.
        factors: names, in the order of their colours.
        records: ``name``, ``arm`` (the factor), ``place`` of the level in it, ``mean``, ``low``, ``high``.
        title: of the axis, with its unit.
    """
    records = list(records)
    x = {"type": "quantitative", "title": title, "scale": {"zero": False, "padding": 10}, "axis": {"tickCount": 4}}
    y = names_axis("name", names)
    return panel(
        _BAND * len(names),
        layer(
            records,
            {"type": "line", "strokeWidth": 1.5, "strokeDash": [4, 3]},
            x=x | {"field": "mean"},
            y=y,
            order={"field": "place", "type": "quantitative"},
            detail={"field": "arm", "type": "nominal"},
            color=arm_colour(factors),
        ),
        layer(
            records,
            {"type": "rule", "strokeWidth": 5, "opacity": 0.45},
            x=x | {"field": "low"},
            x2={"field": "high"},
            y=y,
            color=arm_colour(factors),
        ),
        layer(
            records,
            {"type": "point", "filled": True, "size": 60, "opacity": 1, "stroke": PAPER, "strokeWidth": 1},
            x=x | {"field": "mean"},
            y=y,
            color=arm_colour(factors),
            shape=arm_shape(factors),
        ),
    )


def interaction(
    levels: Sequence[str], others: Sequence[str], records: Iterable[Record], *, factor: str, title: str
) -> Spec:
    """Means at each level of one factor, a line for each level of another: parallel lines are no interaction.

    Args:
        levels: of the one factor, along the axis.
        others: of the other, with its name, in the order of their colours.
        records: ``level``, ``arm`` (of ``others``), ``mean``, ``low``, ``high``.
        factor: the one factor.
        title: of the axis of means, with its unit.
    """
    records = list(records)
    x = {"field": "level", "type": "nominal", "sort": list(levels), "title": factor, "axis": {"labelAngle": 0}}
    x |= {"scale": {"type": "point", "padding": 0.4}}
    y = {
        "type": "quantitative",
        "title": title,
        "scale": {"type": "log", "nice": False, "padding": 10},
        "axis": {"tickCount": 4, "titlePadding": 12, "format": "~g"},
    }
    colour = arm_colour(others, legend=True)
    return panel(
        190,
        layer(
            records, {"type": "rule", "strokeWidth": 5, "opacity": 0.35}, x=x, y=y | {"field": "low"},
            y2={"field": "high"}, color=colour,
        ),
        layer(
            records,
            {"type": "line", "strokeWidth": 1.8},
            x=x,
            y=y | {"field": "mean"},
            color=colour,
        ),
        layer(
            records,
            {"type": "point", "filled": True, "size": 55, "opacity": 1, "stroke": PAPER, "strokeWidth": 1},
            x=x,
            y=y | {"field": "mean"},
            color=colour,
            shape=arm_shape(others, legend=True),
        ),
    )  # fmt: skip


def explained(names: Sequence[str], records: Iterable[Record]) -> Spec:
    """Shares of the variation, one bar each, with the share in words; those no effect is claimed of are pale.

    Args:
        names: in the order they are shown.
        records: ``name``, ``share``, ``text``, ``claimed``.
    """
    records = list(records)
    y = names_axis("name", names)
    y["axis"] |= {"labelLimit": _NAMES, "minExtent": min(7.2 * max(map(len, names)), _NAMES) + 4}
    x = {"type": "quantitative", "scale": {"domain": [0, 1.3]}, "title": "share of the variation"}
    axis = {"format": "%", "values": [0, 0.5, 1], "grid": False}
    share = x | {"field": "share", "axis": axis}
    opacity = {"condition": {"test": "datum.claimed", "value": 1}, "value": 0.4}
    return panel(
        _BAND * len(names),
        layer(records, {"type": "bar", "size": 13, "color": "var(--arm-0)"}, x=share, y=y, opacity=opacity),
        layer([{"none": 0}], {"type": "rule", "color": MUTED}, x=x | {"field": "none", "axis": axis}),
        layer(
            records,
            {"type": "text", "align": "left", "dx": 4, "fontSize": 11, "color": INK},
            x=share,
            y=y,
            text={"field": "text", "type": "nominal"},
        ),
    )
