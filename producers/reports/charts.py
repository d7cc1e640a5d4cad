"""Charts of a report: SVG by pygal, without scripts, in the colours of the page around them."""

import re
import sys
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from producers.reports.report import Report

ORDER: Final = (
    "delivered",
    "no_permit",
    "refused",
    "invalid_user",
    "bad_data",
    "late",
    "suppressed",
    "kept",
    "capped",
    "cancelled",
    "in_doubt",
    "failed",
    "",
)
"""Outcomes as they stand in each chart and table, the best first; '' are retries."""

COLOURS: Final = {
    "delivered": "#2f9e62",
    "no_permit": "#8a8f98",
    "refused": "#d99a1c",
    "invalid_user": "#b9772b",
    "bad_data": "#c2552d",
    "late": "#7a6fc2",
    "suppressed": "#6b8fa3",
    "kept": "#4f8fd0",
    "capped": "#5fb3b3",
    "cancelled": "#5d6470",
    "in_doubt": "#c23b7a",
    "failed": "#cf3a3a",
    "": "#a8b24a",
}
_ACCENT: Final = "#3b82c4"
_STRANGE: Final = "#8a8f98"
_SCRIPT: Final = re.compile("<script.*?</script>", re.DOTALL)


def _chart(kind: str, colours: list[str], **options: Any) -> Any:
    import pygal  # noqa: PLC0415 - an extra: only a report needs it
    from pygal.style import Style  # noqa: PLC0415

    # it leaves an importer for plugins of its own behind, of a kind that Python 3.12 dropped
    sys.meta_path[:] = [
        one for one in sys.meta_path if not type(one).__module__.startswith("pygal")
    ]

    style = Style(
        background="transparent",
        plot_background="transparent",
        foreground="currentColor",
        foreground_strong="currentColor",
        foreground_subtle="currentColor",
        guide_stroke_color="rgba(128, 128, 128, 0.35)",
        major_guide_stroke_color="rgba(128, 128, 128, 0.35)",
        font_family="inherit",
        label_font_size=13,
        major_label_font_size=13,
        legend_font_size=14,
        opacity=".85",
        colors=tuple(colours),
    )
    return getattr(pygal, kind)(
        js=[],
        style=style,
        width=960,
        height=320,
        margin=8,
        margin_bottom=28,
        show_legend=False,  # the page has one, that can be read by itself
        truncate_label=-1,
        **options,
    )


def outcomes_of(report: "Report") -> list[str]:
    """Return the outcomes of a run's answers in their order, those of a later version last."""
    present = {name for at in report.moments for name in at.outcomes}
    return [one for one in ORDER if one in present] + sorted(present.difference(ORDER))


def over_time(report: "Report") -> str:
    """Return answers a second over the run, by outcome; '' when there are none."""
    if not report.moments:
        return ""
    present = outcomes_of(report)
    chart = _chart(
        "StackedBar",
        [COLOURS.get(one, _STRANGE) for one in present],
        x_labels=[at.at[11:19] for at in report.moments],
        x_labels_major_every=max(1, len(report.moments) // 8),
        show_minor_x_labels=False,
        spacing=0,
        value_formatter=lambda rate: f"{rate:,.0f}/s",
    )
    for outcome in present:
        rates = [at.outcomes.get(outcome, 0) / report.step_s for at in report.moments]
        chart.add(outcome or "tried again", rates)
    return _svg(chart)


def of_latency(report: "Report") -> str:
    """Return how many sends took how long; '' when there are none."""
    if not report.spread:
        return ""
    chart = _chart(
        "Bar",
        [_ACCENT],
        x_labels=[f"{from_ms:,.0f}" for from_ms, _ in report.spread],
        x_labels_major_every=max(1, len(report.spread) // 12),
        show_minor_x_labels=False,
        spacing=2,
        value_formatter=lambda n: f"{n:,.0f}",
    )
    chart.add("sends", [n for _, n in report.spread])
    return _svg(chart)


def _svg(chart: Any) -> str:
    text: str = chart.render(is_unicode=True, disable_xml_declaration=True)
    return _SCRIPT.sub("", text)  # of a chart that would move: this one is to be read
