"""What the report's figures are made of, and how one is drawn: as SVG, by Vega-Lite, when the report is written.

Nothing is left to compute where it is read. Colours are CSS variables of the page, so that one drawing serves light,
dark and paper. Every panel is as wide as a phone; the page lays them side by side where there is room. An arm has a
colour and a shape of its own.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

Spec = dict[str, Any]
Record = dict[str, Any]

VEGA_LITE: Final = "6.1"
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
_LABEL_LIMIT: Final = 130
_LETTER: Final = 7.2
"""Width of a letter of a label in the widest of the fonts that readers have; which one is known only there."""
INK, MUTED, RULE, PAPER = "var(--ink)", "var(--muted)", "var(--rule)", "var(--paper)"
CONFIG: Final[Spec] = {
    "aria": False,  # the page gives every figure its text and its table
    "background": None,
    "font": "system-ui, sans-serif",
    "axis": {
        "labelColor": INK,
        "titleColor": INK,
        "tickColor": MUTED,
        "domainColor": MUTED,
        "gridColor": RULE,
        "labelFontSize": 11,
        "titleFontSize": 11,
        "titleFontWeight": "normal",
        "labelLimit": _LABEL_LIMIT,
        "labelOverlap": "greedy",
        "labelSeparation": 8,
    },
    "legend": {
        "labelColor": INK,
        "labelFontSize": 11,
        "labelLimit": 150,
        "orient": "top",
        "title": None,
        "columns": 2,
        "columnPadding": 20,
        "symbolOpacity": 1,
    },
    "view": {"stroke": None},
}


def draw(spec: Spec) -> str:
    """Renders a figure; no file and no network is read. It is hidden from screen readers, who get the page's text."""
    import vl_convert  # here, because it starts a JavaScript engine and most commands never need it

    svg: str = vl_convert.vegalite_to_svg({"config": CONFIG, **spec}, vl_version=VEGA_LITE, allowed_base_urls=[])
    return svg.replace("<svg ", '<svg aria-hidden="true" ', 1)


def panel(height: int, *layers: Spec) -> Spec:
    """Layers over each other, as wide as a phone."""
    return {
        "width": WIDTH,
        "height": height,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "padding": {"left": 2, "right": 10, "top": 4, "bottom": 4},
        "layer": list(layers),
    }


def layer(records: Iterable[Record], mark: Spec, **encoding: Spec) -> Spec:
    """One mark for each record."""
    return {"data": {"values": list(records)}, "mark": mark, "encoding": encoding}


def names_axis(field: str, names: Sequence[str]) -> Spec:
    """An axis of names, in their order, with room for them in any font."""
    room = min(_LETTER * max(map(len, names), default=0), _LABEL_LIMIT) + 4
    axis = {"ticks": False, "domain": False, "minExtent": room}
    return {"field": field, "type": "nominal", "sort": list(names), "title": None, "axis": axis}


def arm_colour(arms: Sequence[str], *, legend: bool = False) -> Spec:
    """The colours of arms, in their order."""
    colours = [f"var(--arm-{i % ARM_COLOURS})" for i in range(len(arms))]
    return _of_arm(arms, colours, legend=legend)


def arm_shape(arms: Sequence[str], *, legend: bool = False) -> Spec:
    """The shapes of arms, in their order."""
    return _of_arm(arms, [SHAPES[i % len(SHAPES)] for i in range(len(arms))], legend=legend)


def _of_arm(arms: Sequence[str], scale_range: list[str], *, legend: bool) -> Spec:
    found: Spec = {"field": "arm", "type": "nominal", "scale": {"domain": list(arms), "range": scale_range}}
    return found if legend else found | {"legend": None}
