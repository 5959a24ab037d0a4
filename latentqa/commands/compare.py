"""`latentqa compare`: any number of evaluated runs, on the questions that they share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from latentqa.commands.options import DEFAULT_ROOT, REF_HELP, JsonOption, RootOption, print_json

if TYPE_CHECKING:
    from pipelines.reports.compare.cells import Cell
    from pipelines.reports.compare.runs import Comparison


def compare(
    ref: Annotated[
        list[str],
        typer.Argument(
            metavar="REF REF...",
            help=f"Evaluated runs, the baseline first. {REF_HELP} Runs joined by + are pooled: "
            "name:1+name:2, where their seeds alone differ.",
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="FOLDER", help="Where the page goes.")
    ] = Path("comparison"),
    root: RootOption = DEFAULT_ROOT,
    as_json: JsonOption = False,
) -> None:
    """Compare evaluated runs on the same questions, significant differences marked.

    Writes a page with figures (PNG, SVG, CSV), and prints the numbers. `latentqa diff` compares
    settings instead.
    """
    from pipelines.artifacts.refs import Refs
    from pipelines.artifacts.root import ArtifactRoot
    from pipelines.reports.compare.page import write_comparison
    from pipelines.reports.compare.runs import compare_runs, comparison_rows, find_runs

    found = compare_runs(find_runs(Refs(ArtifactRoot(root.expanduser())), ref))
    page = write_comparison(found, out.expanduser())
    if as_json:
        print_json({"page": str(page), "rows": comparison_rows(found)})
        return
    _print(found)
    typer.echo(f"Page:  {page}")


def _print(found: Comparison) -> None:
    from pipelines.reports.compare.cells import SETTINGS
    from pipelines.reports.compare.page import title
    from pipelines.reports.compare.runs import mixed_pools, single_seeds

    wide = max(len(run.name) for run in found.runs) + 2
    for case in (*found.cases, *found.written):
        least = SETTINGS.min_controls
        few = f"; an interval needs {least} controls" if case.controls < least else ""
        typer.echo(
            f"{case.view} ({case.split}): {case.controls} controls, {case.questions} questions{few}"
        )
        for metric, cells in case.cells.items():
            for k, (run, cell) in enumerate(zip(found.runs, cells, strict=True)):
                name = title(metric) if k == 0 else ""
                typer.echo(f"  {name:<28}{run.name:<{wide}}{_words(cell)}".rstrip())
    typer.echo("* differs from the first run: the interval excludes zero, and p < 0.05 after Holm.")
    for name, fields in mixed_pools(found.runs):
        typer.echo(f"The runs pooled as {name} differ by more than their seeds: {fields}.")
    for run in found.runs:
        if run.foreign:
            typer.echo(f"{run.name} reads a foreign target: not the decoder's own.")
    if single := single_seeds(found.runs):
        typer.echo(
            f"Of {', '.join(single)} there is one training run each: a mark is about the decoder, "
            "not its settings. Join runs of several seeds by +."
        )


def _words(cell: Cell) -> str:
    text = "–" if cell.leaf is None else str(cell.leaf)
    if cell.difference is None:
        return text
    p = "" if cell.p is None else f", p {cell.p:.3f}"
    return f"{text}   difference {cell.difference}{p}{' *' if cell.differs else ''}"
