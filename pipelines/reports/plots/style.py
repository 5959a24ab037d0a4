"""The style of plots, and their rendering as SVG and PNG: the same figure, the same bytes.

Inside a page `inline_svg` turns each colour of `PALETTE` into the CSS variable `--plot-NAME`, so
that one figure is legible on light and on dark paper.
"""

from __future__ import annotations

import io
import re
from typing import Any

import matplotlib
from markupsafe import escape
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

PALETTE = {
    "ink": "#22252b",
    "muted": "#6c7078",
    "rule": "#d9d7d0",
    "own": "#1d63a5",
    "other": "#bf5322",
    "plain": "#83878f",
    "third": "#4b8a52",
    "raw": "#b9cbdd",
    "paper": "#fffefc",
}
"""Name of each colour → its value on light paper; no two are equal, so that they can be told apart
in a finished SVG."""

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "latentqa",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "axes.unicode_minus": True,
    "path.simplify": False,
}
"""Matplotlib settings under which figures are drawn and written."""


def svg(figure: Figure) -> str:
    """Render a stand-alone SVG document; the same figure always gives the same text."""
    out = io.StringIO()
    with matplotlib.rc_context(STYLE):
        FigureCanvasAgg(figure)
        figure.savefig(
            out, format="svg", transparent=True, metadata={"Date": None, "Creator": None}
        )
    return out.getvalue()


def png(figure: Figure, dpi: int = 160) -> bytes:
    """Render a PNG on light paper, cut to what is drawn; a figure always gives the same bytes."""
    out = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        FigureCanvasAgg(figure)
        figure.savefig(
            out,
            format="png",
            dpi=dpi,
            facecolor=PALETTE["paper"],
            metadata={"Software": None},
            bbox_inches="tight",
            pad_inches=0.1,
        )
    return out.getvalue()


def inline_svg(document: str, name: str, description: str) -> str:
    """Turn an SVG document into an element of a page: themed, with its own ids, and described.

    Args:
        document: what `svg` returned.
        name: unique in the page; every id of the element starts with it.
        description: what the figure shows.
    """
    text = document[document.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", text)
    text = re.sub(r'xlink:href="#([^"]+)"', rf'href="#{name}-\1"', text)
    # the page decides how wide a figure is; the view box keeps its proportions
    text = re.sub(r'^<svg([^>]*?) width="[^"]*"', r"<svg\1", text)
    text = re.sub(r'^<svg([^>]*?) height="[^"]*"', r"<svg\1", text)
    for colour, value in PALETTE.items():
        text = text.replace(value, f"var(--plot-{colour}, {value})")
    return text.replace("<svg", f'<svg role="img" aria-label="{escape(description)}"', 1)
