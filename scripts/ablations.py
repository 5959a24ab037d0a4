"""What matters in training a decoder: one change at a time, on the embedded model, with intervals.

Each setting is the base experiment with a few fields changed, trained and judged as
`latentqa run` does it; what is done stands in the artifact root, so a stopped sweep goes on where
it was. The table of all that is finished is printed, and with --write put into docs/training.md.

    python scripts/ablations.py --data FOLDER --root ROOT --minutes 60 --write
    python scripts/ablations.py --data FOLDER --root ROOT --rows 60 --controls 8 --only rank
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from core.errors import LatentQAError
from evaluators.comparison.values import ComparedValue
from evaluators.stats.estimates import Estimate
from pipelines.artifacts.root import ArtifactRoot
from pipelines.experiment.config import Experiment, load_experiment
from pipelines.reports.compare.comparison import compare_runs
from pipelines.reports.compare.runs import Run
from pipelines.reports.tables import markdown
from pipelines.running.results import RunResult
from pipelines.running.runner import Runner

CHECKOUT = Path(__file__).parents[1]
PAGE = CHECKOUT / "docs" / "training.md"
BEGIN, END = "<!-- ablations -->", "<!-- /ablations -->"
MASKED = "[stimulus, stimulus_completion, system]"
BASE = ("experiment=ablations", "dump.layers=[7, 14, 21]", "train.decoder.read_layer=14")
"""All read layers stand in one store, so every setting reads the same one."""
SETTINGS: dict[str, tuple[str, ...]] = {
    "base": (),
    "another seed": ("train.seed=1",),
    "masking: off": ("train.decoder.masking=false",),
    "views: control alone": ("train.views=[control]",),
    "views: one of each": ("train.mixture={}",),
    "views: masked alone": (f"train.views={MASKED}", "train.mixture={}"),
    "injection: add": ("train.decoder.injection=add",),
    "injection: add at block 1": (
        "train.decoder.injection=add",
        "train.decoder.write_layer=1",
    ),
    "positions: plain": ("train.decoder.positions=plain",),
    "read layer: 7": ("train.decoder.read_layer=7",),
    "read layer: 21": ("train.decoder.read_layer=21",),
    "read layers: 7, 14, 21 sampled": (
        "train.decoder.read_layer=null",
        "train.decoder.read_layers=[14, 7, 21]",
    ),
    "read layers: 7, 14, 21 concatenated": (
        "train.decoder.read_layer=null",
        "train.decoder.read_layers=[7, 14, 21]",
        "train.decoder.combine=concatenated",
    ),
    "write layer: 4": ("train.decoder.write_layer=4",),
    "write layer: 10": ("train.decoder.write_layer=10",),
    "rank: 4": ("train.lora.rank=4", "train.lora.alpha=8"),
    "rank: 64": ("train.lora.rank=64", "train.lora.alpha=128"),
    "questions a row: 1": ("train.questions_per_row=1",),
    "learning rate: 3e-4": ("train.learning_rate=3.0e-4",),
    "learning rate: 3e-3": ("train.learning_rate=3.0e-3",),
    "learning rate: 3e-3, another seed": ("train.learning_rate=3.0e-3", "train.seed=1"),
    "learning rate: 3e-3, rank: 64": (
        "train.learning_rate=3.0e-3",
        "train.lora.rank=64",
        "train.lora.alpha=128",
    ),
    "dropout: 0.05": ("train.lora.dropout=0.05",),
    "rows a step: 2": ("train.rows_per_batch=2",),
    "rows a step: 8": ("train.rows_per_batch=8",),
    "epochs: 2": ("train.epochs=2",),
}
HALF, DOUBLE = "rows: half", "rows: double"
"""Settings of the number of rows, which follow from --rows."""
VIEWS = ("control", "stimulus_completion", "stimulus", "system")


def main() -> None:
    """Run what is not done and time allows; print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default=str(CHECKOUT / "experiments" / "latentqa_eval.yaml"))
    parser.add_argument("--data", help="folder of the published files")
    default = Path(os.environ.get("LATENTQA_ROOT", "artifacts"))
    parser.add_argument("--root", type=Path, default=default)
    parser.add_argument("--rows", type=int, default=120, help="training rows of the base")
    parser.add_argument("--controls", type=int, default=12, help="controls judged, of each view")
    parser.add_argument("--views", nargs="+", default=VIEWS, help="views judged")
    parser.add_argument("--minutes", type=float, help="start no setting after so many")
    parser.add_argument("--only", nargs="*", default=[""], help="settings whose name begins so")
    parser.add_argument("--write", action="store_true", help="put the table into docs/training.md")
    words = parser.parse_args()
    start = time.monotonic()
    done: dict[str, RunResult] = {}
    for name, changes in settings(words.rows).items():
        wanted = any(name.startswith(prefix) for prefix in words.only)
        late = words.minutes is not None and time.monotonic() - start > 60 * words.minutes
        try:
            runner = Runner(
                experiment(words, changes), ArtifactRoot(words.root.expanduser()), until="evaluate"
            )
            runner.prepare()
            with runner.open():
                found = runner.cached()
                if found is None and wanted and not late:
                    print(f"{name} ...", file=sys.stderr, flush=True)
                    found = runner.run()
        except LatentQAError as error:
            sys.exit(f"{name}: {error}")
        if found is not None:
            done[name] = found
            if words.write:
                write(PAGE, section(done, words))
    print(section(done, words))


def settings(rows: int) -> dict[str, tuple[str, ...]]:
    """Every setting's overrides by name."""
    sizes = {HALF: rows // 2, DOUBLE: rows * 2}
    return SETTINGS | {name: (f"train.max_rows={size}",) for name, size in sizes.items()}


def experiment(words: argparse.Namespace, changes: tuple[str, ...]) -> Experiment:
    """Load the base experiment with `changes`."""
    size = (
        f"train.max_rows={words.rows}",
        f"evaluate.max_controls={words.controls}",
        f"evaluate.views=[{','.join(words.views)}]",
        "train.evaluations=3",
    )
    data = () if words.data is None else (f"data.path={words.data}",)
    return load_experiment(Path(words.config), (*data, *BASE, *size, *changes))


def section(done: Mapping[str, RunResult], words: argparse.Namespace) -> str:
    """Write the section of the page: losses compared with the base's, then what is read."""
    views = "" if tuple(words.views) == VIEWS else f" --views {' '.join(words.views)}"
    about = (
        f"`python scripts/ablations.py --rows {words.rows} --controls {words.controls}{views}`: "
        f"{words.rows} training rows where the setting names no other number, {words.controls} "
        f"held-out controls a view; {len(done)} of {len(settings(words.rows))} settings are done. "
        "Nats a token, 95 % intervals over controls.\n\n"
        "How much the loss on the row's own activations (`right`) is above the base's, on the same "
        "questions, paired by control; below zero is better, **bold** is an interval without zero. "
        "Each setting is one training: what another seed changes is in the line of that name.\n\n"
    )
    head = ["setting", "validation `right`", *(f"{view}: `right`" for view in words.views)]
    base = done.get(next(iter(SETTINGS)))
    away = [loss_line(name, result, base, words.views) for name, result in done.items()]
    gains = [gain_line(name, result.metrics, words.views) for name, result in done.items()]
    return (
        about
        + markdown(head, away)
        + "\n\nThe information gain: below zero is a decoder that a guess does better than.\n\n"
        + markdown(["setting", *words.views], gains)
    )


def loss_line(
    name: str, result: RunResult, base: RunResult | None, names: Sequence[str]
) -> list[str]:
    """Format a setting's losses against the base's on the same questions; the base's as is."""
    train, views = result.metrics["train"], result.metrics["reading"]["test"]
    cells = {}
    if result is base:
        cells = {view: interval_text(views[view]["answer_loss"]["right"]) for view in names}
    elif base is not None and views.keys() & base.metrics["reading"]["test"].keys():
        found = compare_runs([_run("base", base), _run(name, result)])
        cells = {view.view: difference(view.metrics["right"][1]) for view in found.losses}
    return [name, f"{train['validation']:.2f}", *(cells.get(view, "–") for view in names)]


def difference(value: ComparedValue) -> str:
    """Format a difference to the base with its interval, in bold where that excludes zero."""
    found = value.difference
    assert found is not None, "compare_runs gives one to every run but the first"
    ends = "" if found.low is None else f" [{found.low:+.2f}, {found.high:+.2f}]"
    text = f"{found.estimate:+.2f}{ends}"
    return f"**{text}**" if found.excludes_zero else text


def gain_line(name: str, metrics: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """Format a setting's information gains; a view judged with the control visible is marked."""
    views = metrics["reading"]["test"]
    cells = []
    for view in names:
        mark = "" if view in views else " (visible)"
        found = views.get(view) or views.get(f"{view}+visible")
        cells.append("–" if found is None else interval_text(found["information_gain"]) + mark)
    return [name, *cells]


def interval_text(found: Mapping[str, Any]) -> str:
    """Format an estimate of `run --json` with its interval."""
    return str(Estimate.model_validate(found))


def _run(name: str, result: RunResult) -> Run:
    return Run(name=name, sets=({run.step.name: run.artifact for run in result.steps},))


def write(page: Path, text: str) -> None:
    """Put `text` between the page's marks."""
    whole = page.read_text(encoding="utf-8")
    if BEGIN not in whole:
        whole += f"\n## Ablations\n\n{BEGIN}{END}\n"
    before, _, rest = whole.partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
