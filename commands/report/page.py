"""Renders the report: one HTML page with everything in it, for a phone as well as a desk."""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import vl_convert
from jinja2 import Environment, FileSystemLoader

from commands.report.section import Chart, Row, Section

# Pixels of a chart on a phone, and of one on a wider screen, whose labels keep their size.
NARROW, WIDE = 326, 516
FONT = "Helvetica, Arial, sans-serif"
INK = "#24292f"
LOOK = {
    "font": FONT,
    "background": "transparent",
    "view": {"stroke": None},
    "axis": {
        "labelColor": INK,
        "titleColor": INK,
        "titleFontWeight": "normal",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "labelLimit": 190,
        "gridColor": "#e6e8eb",
        "domainColor": "#8b929a",
        "tickColor": "#8b929a",
    },
}


@dataclass(frozen=True)
class Part:
    """A section with its rows and, if it has a chart and rows, the addresses of two pictures."""

    section: Section
    rows: Sequence[Row]
    narrow: str = ""
    wide: str = ""


def part_of(section: Section, rows: Sequence[Row]) -> Part:
    """Draw the section's chart, once for each width."""
    if section.chart is None or not rows:
        return Part(section, rows)
    chart = section.chart(rows)
    return Part(section, rows, _picture(chart, NARROW), _picture(chart, WIDE))


def render(parts: Sequence[Part], database: str, made_at: datetime) -> str:
    """The page; without parts, it states how to get some. `made_at` is in UTC."""
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["shown"] = shown
    templates.tests["figure"] = is_figure
    return templates.get_template("page.html").render(
        parts=parts, database=database, made_at=f"{made_at:%Y-%m-%d %H:%M} UTC"
    )


def shown(value: object) -> str:
    """A value as the tables show it: `1,234.50`, `2026-01-31 04:00`, `yes`; nothing for null."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case datetime():
            return f"{value:%Y-%m-%d %H:%M}"
        case int() | float() | Decimal():
            return f"{value:,}"
    return str(value)


def is_figure(value: object) -> bool:
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def _picture(chart: Chart, width: int) -> str:
    """The chart as the address of a picture that holds its SVG.

    A picture keeps the ids in the SVG to itself: on one page, charts would clip each other.
    """
    fit = {"type": "fit-x", "contains": "padding"}
    specification = {**chart.to_dict(), "width": width, "autosize": fit}
    legend = {"orient": "top", "labelFontSize": 12, "columns": 5 if width == WIDE else 1}
    svg = vl_convert.vegalite_to_svg(specification, config={**LOOK, "legend": legend})
    return f"data:image/svg+xml;base64,{b64encode(svg.encode()).decode()}"
