"""`latentqa sweep`: scaling curves over an experiment's settings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from latentqa.terminal.options import (
    DEFAULT_ROOT,
    ConfigArgument,
    JsonOption,
    RootOption,
    SetOption,
    check_out_folder,
    root_words,
)
from latentqa.terminal.printing import print_json, say

if TYPE_CHECKING:
    from pipelines.reports.sweep.findings import SweepFindings


def sweep(
    config: ConfigArgument,
    vary: Annotated[
        list[str],
        typer.Option(
            "--vary",
            metavar="FIELD=A,B,C",
            help="An axis and its values: a field, or rows, questions, rank, read_layer, "
            "mixture, epochs or model; repeatable. Replaces the axes of the file.",
        ),
    ] = [],  # noqa: B006 - typer's default, never changed
    seeds: Annotated[
        int | None,
        typer.Option("--seeds", metavar="N", min=1, max=1000, help="Trainings per setting."),
    ] = None,
    set_: SetOption = [],  # noqa: B006 - typer's default, never changed
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Folder for the page and its tables.")
    ] = Path("sweep"),
    root: RootOption = DEFAULT_ROOT,
    as_json: JsonOption = False,
) -> None:
    """Train an experiment at several settings and plot its metrics against them.

    Every point is an ordinary run; all points share rows and activations. An interrupted sweep
    resumes. A failed point is reported and does not stop the others; the exit code is then 1.
    Writes a page with figures (PNG, SVG, CSV), rows.parquet and CSV tables.
    """
    check_out_folder("sweep", out)
    from latentqa.api import sweep as run_sweep
    from pipelines.reports.sweep.page import write_sweep
    from pipelines.running.request import command_line

    words = [word for axis in vary for word in ("--vary", axis)]
    words += [] if seeds is None else ["--seeds", str(seeds)]
    found = run_sweep(
        config,
        root=root,
        overrides=set_,
        vary=vary,
        seeds=seeds,
        command=command_line("sweep", config, *words, overrides=set_),
    )
    page = write_sweep(found, out.expanduser())
    if as_json:
        print_json(
            {
                "page": str(page),
                "points": [point.ref for point in found.points],
                "failed": dict(found.failed),
                "settings": found.settings(),
                "fits": found.fits(),
            }
        )
    else:
        _print(found)
        for label, why in found.failed:
            say(f"failed: {label}: {why}")
        if found.points:
            say(f"A run of it:  latentqa results {found.points[0].ref}{root_words(root)}")
        say(f"Page:  {page}")
    if found.failed:
        raise typer.Exit(1)


def _print(found: SweepFindings) -> None:
    """Print every estimate, and of each power law what it says of the size held out."""
    from pipelines.experiment.sweep_points import shown

    for curve in found.curves:
        others = "".join(f", {axis}={shown(value)}" for axis, value in curve.group.items())
        wide = max(16, *(len(shown(point.value)) + 2 for point in curve.points))
        say(f"{curve.metric.title} ({curve.split}, {curve.view}) by {curve.axis}{others}")
        for point in curve.points:
            say(f"  {shown(point.value):<{wide}}{point.estimate}")
        if curve.fit is not None:
            say(f"  power law       {curve.fit.law}")
        if (judged := curve.held_out) is not None:
            where = {True: "inside", False: "outside", None: "no interval"}[judged.inside]
            say(f"  held out        predicted {judged.predicted}, measured value {where}")
