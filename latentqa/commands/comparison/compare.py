"""`latentqa compare`: any number of evaluated runs, on the questions that they share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from latentqa.api import open_refs
from latentqa.terminal.options import (
    DEFAULT_ROOT,
    REF_HELP,
    JsonOption,
    RootOption,
    check_out_folder,
)
from latentqa.terminal.printing import print_json, say

if TYPE_CHECKING:
    from evaluators.comparison.values import ComparedValue
    from pipelines.reports.compare.comparison import Comparison


def compare(
    refs: Annotated[
        list[str],
        typer.Argument(
            metavar="REF...",
            help=f"Evaluated runs, the baseline first: {REF_HELP} Runs joined by + are pooled: "
            "name:1+name:2, where their seeds alone differ.",
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Folder for the page and its figures.")
    ] = Path("comparison"),
    root: RootOption = DEFAULT_ROOT,
    as_json: JsonOption = False,
) -> None:
    """Compare evaluated runs on the same questions, and mark significant differences.

    Writes a page with figures (PNG, SVG, CSV) and prints the numbers. `latentqa diff` compares
    settings.
    """
    check_out_folder("compare", out)
    from pipelines.reports.compare.comparison import compare_runs, comparison_rows
    from pipelines.reports.compare.page import write_comparison
    from pipelines.reports.compare.runs import find_runs

    found = compare_runs(find_runs(open_refs(root), refs))
    page = write_comparison(found, out.expanduser())
    if as_json:
        print_json({"page": str(page), "rows": comparison_rows(found)})
        return
    _print(found)
    say(f"Page:  {page}")


def _print(found: Comparison) -> None:
    from evaluators.comparison.values import BOOTSTRAP
    from pipelines.reports.compare.page import metric_title
    from pipelines.reports.compare.runs import single_seed_runs

    targets = {run.name: str(run.target) for run in found.runs}
    for name, target in targets.items():
        if len(set(targets.values())) > 1:
            say(f"{name} reads {target}")
    if len(set(targets.values())) == 1:
        say(f"Target: {targets[found.runs[0].name]}")
    wide = max(len(run.name) for run in found.runs) + 2
    least = BOOTSTRAP.min_controls
    for view in (*found.losses, *found.written):
        few = f"; an interval needs {least} controls" if view.controls < least else ""
        say(
            f"{view.view} ({view.split}): {view.controls} controls, {view.questions} questions{few}"
        )
        for metric, values in view.metrics.items():
            for k, (run, value) in enumerate(zip(found.runs, values, strict=True)):
                name = metric_title(metric) if k == 0 else ""
                say(f"  {name:<28}{run.name:<{wide}}{_words(value)}".rstrip())
    say("* differs from the first run: the interval excludes zero, and p < 0.05 after Holm.")
    for run in found.runs:
        if run.foreign:
            say(f"{run.name} reads a foreign target: not the decoder's own.")
    if single := single_seed_runs(found.runs):
        say(
            f"Of {', '.join(single)} there is one training run each: a mark is about the decoder, "
            "not its settings. Join runs of several seeds by +."
        )


def _words(value: ComparedValue) -> str:
    if value.difference is None:
        return str(value.estimate)
    p = "" if value.p is None else f", p {value.p:.3f}"
    return f"{value.estimate}   difference {value.difference}{p}{' *' if value.differs else ''}"
