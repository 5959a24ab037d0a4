"""Rendering self-contained HTML pages from the templates of pipelines/reports, in one style."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from core.text.terminal import terminal_text
from core.text.wording import count, duration, number, share

TEMPLATES = Path(__file__).parents[1]
_STYLE = Path(__file__).with_name("style.css")
_FILTERS: Mapping[str, Callable[..., Any]] = {
    "nats": number,
    "count": count,
    "duration": duration,
    "share": share,
}
"""Formats of numbers that every template may use."""


def render_page(
    template: str, *, filters: Mapping[str, Callable[..., Any]] | None = None, **values: Any
) -> str:
    """Render a template that extends pages/page.html.

    Every text in it is escaped, and holds no control byte and no mark that turns its order.

    Args:
        template: its path below pipelines/reports.
        filters: further functions by the name under which the template calls them.
        values: what the template shows.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {**_FILTERS, **(filters or {})}
    css = Markup(_STYLE.read_text(encoding="utf-8"))
    # after rendering: control bytes and bidirectional marks of any text, figures included
    return terminal_text(environment.get_template(template).render(css=css, **values))
