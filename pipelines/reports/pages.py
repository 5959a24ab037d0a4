"""Pages: self-contained HTML from the templates beside this file, in one style."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

_HERE = Path(__file__).parent


def render(template: str, *, filters: Mapping[str, Callable[..., Any]], **values: Any) -> str:
    """The page of a template that extends page.html.

    Args:
        filters: by the name that the template has for each.
        values: what the template shows.
    """
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters
    css = Markup((_HERE / "report.css").read_text())
    return environment.get_template(template).render(css=css, **values)
