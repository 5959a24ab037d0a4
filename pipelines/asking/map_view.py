"""Maps of where an answer can be read, on a terminal and as files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.text import Text

from core.files import write_files
from core.text.text_tables import csv_bytes

if TYPE_CHECKING:
    from pipelines.asking.reading_map import ReadingMap, Window

_CELL = 6
"""Characters of a cell."""
_NAME = 11
"""Characters of a row's name."""
_LIGHT, _BELOW, _ABOVE = (255, 255, 255), (191, 83, 34), (29, 99, 165)


def print_map(found: ReadingMap, console: Console) -> None:
    """Print the map, deepest block first; on a terminal its cells are coloured.

    A narrow terminal gets the windows in several parts, one under the other.
    """
    fitting = max(1, (console.width - _NAME) // _CELL - 1)
    names = [f"{'*' if layer in found.trained else ' '}block {layer:>3} " for layer in found.layers]
    for start in range(0, len(found.windows), fitting):
        part = range(start, min(start + fitting, len(found.windows)))
        last = part.stop == len(found.windows)
        for i in reversed(range(len(found.layers))):
            line = Text(names[i].ljust(_NAME))
            for j in part:
                line.append(
                    f"{found.gains[i, j]:+{_CELL}.2f}",
                    _style(found.gains[i, j] / found.colour_limit),
                )
            if last:
                line.append(f"{found.whole[i]:+{_CELL + 2}.2f}")
            console.print(line, soft_wrap=True)
        head = " " * _NAME + "".join(f"{j + 1:>{_CELL}}" for j in part)
        console.print(Text(head + ("     all" if last else "")), soft_wrap=True)
    width = len(str(len(found.windows)))
    for j, window in enumerate(found.windows, 1):
        tokens = f"{window.start}–{window.stop - 1}"
        line = Text(f"  {j:>{width}}  tokens {tokens:<9} {_one_line(window)}")
        console.print(line, soft_wrap=True)


def write_map(found: ReadingMap, folder: Path) -> list[Path]:
    """Write map.png, map.svg and map.csv.

    Raises:
        StorageError: the disk is full or read-only.
    """
    # imported here: a map on a terminal needs no matplotlib
    from pipelines.reports import plots
    from pipelines.reports.plots.style import png, svg

    figure = plots.heat(
        np.column_stack([found.gains, found.whole]),
        rows=[str(layer) for layer in found.layers],
        columns=[*(_one_line(window) for window in found.windows), "all at once"],
        ylabel="block",
        unit="nats per token above none",
        colour_limit=found.colour_limit,
        marked=[i for i, layer in enumerate(found.layers) if layer in found.trained],
    )
    out = {
        "map.png": png(figure),
        "map.svg": svg(figure).encode(),
        "map.csv": csv_bytes(list(found.rows())),
    }
    write_files({folder / name: content for name, content in out.items()})
    return [folder / name for name in out]


def _style(share: float) -> str:
    """Return ink on the colour that `plots.heat` has for a share of the map's colour limit."""
    share = max(-1.0, min(1.0, share))
    end = _ABOVE if share > 0 else _BELOW
    red, green, blue = (round(a + (b - a) * abs(share)) for a, b in zip(_LIGHT, end, strict=True))
    ink = "white" if abs(share) > 0.6 else "black"
    return f"{ink} on rgb({red},{green},{blue})"


def _one_line(window: Window) -> str:
    shown = window.text.replace("\n", "⏎")
    return "".join(c if c.isprintable() else "\ufffd" for c in shown)
