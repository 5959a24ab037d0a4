"""Figures of a page: the files beside it, and its elements for wide and for narrow windows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup
from matplotlib.figure import Figure

from core.files import write_bytes
from core.text.text_tables import CellValue, csv_bytes
from pipelines.reports.plots.style import inline_svg, png, svg

FOLDER = "figures"
"""Folder of the figures' files, beside their page."""


@dataclass(frozen=True, slots=True)
class PageFigure:
    """A figure as files, and as page elements for a wide and for a narrow window."""

    name: str
    svg: str
    png: bytes
    csv: bytes
    wide: Markup
    narrow: Markup


def make_page_figure(
    name: str,
    description: str,
    draw: Callable[..., Figure],
    rows: Sequence[Mapping[str, CellValue]],
    *,
    columns: tuple[int, int] = (3, 1),
) -> PageFigure:
    """Make all forms of a figure.

    Args:
        name: of its files; unique in its page.
        description: what it shows, for screen readers.
        draw: draws it, given the number of its `columns`.
        rows: its numbers, for CSV.
        columns: for a page's width, and for a phone's.
    """
    wide, narrow = (draw(columns=count) for count in columns)
    document = svg(wide)
    return PageFigure(
        name=name,
        svg=document,
        png=png(wide),
        csv=csv_bytes(rows),
        wide=Markup(inline_svg(document, name, description)),
        narrow=Markup(inline_svg(svg(narrow), f"{name}-narrow", description)),
    )


def write_figures(figures: Iterable[PageFigure], out: Path) -> None:
    """Write each figure as SVG, PNG and CSV below `out/figures`.

    Raises:
        StorageError: the disk is full or read-only.
    """
    for figure in figures:
        write_bytes(out / FOLDER / f"{figure.name}.svg", figure.svg.encode())
        write_bytes(out / FOLDER / f"{figure.name}.png", figure.png)
        write_bytes(out / FOLDER / f"{figure.name}.csv", figure.csv)
