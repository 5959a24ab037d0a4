"""`latentqa crossed`: decoders of several experiments, each judged on the rows of all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from core.errors import ConfigError
from latentqa.terminal.options import DEFAULT_ROOT, JsonOption, RootOption
from latentqa.terminal.printing import print_json, say


def crossed(
    configs: Annotated[
        list[str], typer.Argument(metavar="CONFIG...", help="Experiment files (YAML), two or more.")
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="DIR",
            help="Folder of the published files, for experiments that import them.",
        ),
    ] = None,
    foreign_target: Annotated[
        bool,
        typer.Option(
            "--foreign-target",
            help="Allow different targets of the same shape; every result is marked.",
        ),
    ] = False,
    root: RootOption = DEFAULT_ROOT,
    as_json: JsonOption = False,
) -> None:
    """Evaluate the decoder of each experiment on the rows of all, as a Markdown table.

    Runs the experiments first if needed. With --foreign-target their targets may differ, such as a
    model and its fine-tune.
    """
    from pipelines.experiment.config import load_experiment
    from pipelines.running.crossed import crossed as cross
    from pipelines.running.crossed import crossed_table
    from pipelines.running.request import RunRequest, command_line
    from pipelines.running.runner import Runner

    runners: dict[str, Runner] = {}
    for config in configs:
        imports = data is not None and load_experiment(Path(config)).data is not None
        overrides = (f"data.path={data}",) if imports else ()
        runner = RunRequest(config=config, root=str(root), overrides=overrides).open()
        name = runner.experiment.experiment
        if name in runners:
            raise ConfigError(
                f"{config}: got a second experiment named {name}, expected different names."
            )
        runners[name] = runner
    if len(runners) < 2:
        raise ConfigError("crossed: got one experiment, expected at least two.")
    words = ["--data", str(data)] if data is not None else []
    words += ["--foreign-target"] if foreign_target else []
    command = command_line("crossed", *configs, *words, overrides=())
    found = cross(runners, foreign=foreign_target, command=command)
    if as_json:
        print_json(
            [
                {
                    "trained_on": trained,
                    "tested_on": tested,
                    "name": one.name,
                    "foreign_target": one.foreign,
                    "reading": one.reading,
                    "report": None if one.report is None else str(one.report),
                }
                for (trained, tested), one in found.items()
            ]
        )
        return
    say(crossed_table(found))
    say()
    for one in found.values():
        say(f"{one.name}: {one.report}")
