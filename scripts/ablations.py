"""What makes a decoder read what is hidden: one change at a time, on a small closed set.

The data are the packaged personas, each under the same stimuli, hidden from the decoder; it is
judged on stimuli that training has not seen, by the hidden gain and by closed accuracy among four.
Each setting is the base experiment with a few fields changed, trained and judged as `latentqa run`
does it. All share one store of activations; what is done stands in the artifact root, so a stopped
sweep goes on where it was. The table of all that is finished is printed, and with --write put into
docs/training.md.

    python scripts/ablations.py --root ROOT --minutes 60 --write
    python scripts/ablations.py --root ROOT --only contrastive "normalisation: none"
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from core.errors import LatentQAError
from core.records.estimate import Estimate
from core.records.table_files import CONVERSATIONS_FILE, read_conversations
from core.records.tables import Conversation
from core.text.text_tables import markdown
from evaluators.comparison.values import ComparedValue
from generators.kinds.instruction import Attribute, instruction_seeds
from generators.llm.prompt_files import PromptFiles
from pipelines.artifacts.root import ArtifactRoot
from pipelines.experiment.config import Experiment
from pipelines.reports.compare.comparison import compare_runs
from pipelines.reports.compare.runs import Run
from pipelines.running.plan import plan_run
from pipelines.running.results import RunResult
from pipelines.running.runner import Runner

PAGE = Path(__file__).parents[1] / "docs" / "training.md"
BEGIN, END = "<!-- ablations -->", "<!-- /ablations -->"
SPLIT = "test_seen"
ACKNOWLEDGED = "Understood."
CROSSED, SHARED, APART, OFF_POLICY = "crossed", "shared", "apart", "off_policy"
"""Files of conversations: all stimuli under all controls; a quarter of them; as many a control, but
no two controls with the same; and all, with replies that the target gave under another control."""
BASE: dict[str, Any] = {
    "experiment": "ablations",
    "data.format": "conversations",
    "complete.max_tokens": 16,
    # one store for all settings: every read layer, and swapped rows of training too
    "dump.layers": [7, 14, 21],
    "dump.swapped": ["train", SPLIT],
    "train.decoder.read_layer": 14,
    "train.decoder.normalisation": "standardise",
    "train.views": ["system"],
    "train.evaluations": 3,
    "train.validation_rows": 16,
    "evaluate.splits": [SPLIT],
    "evaluate.views": ["system"],
    "evaluate.conditions": ["right", "swapped", "other"],
    "evaluate.answers": 0,
    "evaluate.control_effect": False,
}
_LAYERS = {"train.decoder.read_layer": None, "train.decoder.read_layers": [14, 7, 21]}


def _view(view: str) -> dict[str, Any]:
    return {"train.views": [view], "evaluate.views": [view]}


SETTINGS: dict[str, dict[str, Any]] = {
    "base": {},
    "another seed": {"train.seed": 1},
    "masking: off": {"train.decoder.masking": False},
    "positions: plain": {"train.decoder.positions": "plain"},
    "normalisation: none": {"train.decoder.normalisation": "none"},
    "normalisation: length": {"train.decoder.normalisation": "length"},
    "normalisation: centre": {"train.decoder.normalisation": "centre"},
    "normalisation: wiener": {"train.decoder.normalisation": "wiener"},
    "normalisation: difference": {
        "train.decoder.normalisation": "difference",
        "train.activations": "live",
    },
    "contrastive: 0.5": {"train.contrastive": 0.5},
    "contrastive: 2": {"train.contrastive": 2.0},
    "read layer: 7": {"train.decoder.read_layer": 7},
    "read layer: 21": {"train.decoder.read_layer": 21},
    "read layers: 7, 14, 21 sampled": _LAYERS,
    "read layers: 7, 14, 21 concatenated": {**_LAYERS, "train.decoder.combine": "concatenated"},
    "stimuli: a quarter, shared": {"data": SHARED},
    "stimuli: a quarter, none shared": {"data": APART},
    "view stimulus": _view("stimulus"),
    "view stimulus_completion, own replies": _view("stimulus_completion"),
    "view stimulus_completion, another's replies": {
        **_view("stimulus_completion"),
        "data": OFF_POLICY,
        "complete": None,
    },
}


def main() -> None:
    """Run what is not done and time allows; print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(os.environ.get("LATENTQA_ROOT", "artifacts"))
    parser.add_argument("--root", type=Path, default=default)
    parser.add_argument("--stimuli", type=int, default=28, help="training stimuli of each control")
    parser.add_argument("--epochs", type=float, default=1.5, help="over all stimuli")
    parser.add_argument("--set", action="append", default=[], help="field=value of the base")
    parser.add_argument("--minutes", type=float, help="start no setting after so many")
    parser.add_argument("--only", nargs="*", default=[""], help="settings whose name begins so")
    parser.add_argument("--write", action="store_true", help="put the table into docs/training.md")
    words = parser.parse_args()
    start = time.monotonic()
    root = ArtifactRoot(words.root.expanduser())
    files = write_data(root.path / "ablations", words.stimuli)
    done: dict[str, RunResult] = {}
    for name, changes in SETTINGS.items():
        wanted = any(name.startswith(prefix) for prefix in words.only)
        late = words.minutes is not None and time.monotonic() - start > 60 * words.minutes
        if changes.get("data") == OFF_POLICY:
            if "base" not in done:
                continue
            files[OFF_POLICY] = write_off_policy(files[CROSSED].parent, done["base"])
        try:
            runner = Runner(experiment(changes, files, words), root, until="evaluate")
            found: RunResult | None = None
            is_done = all(step.status == "hit" for step in plan_run(runner))
            if is_done or (wanted and not late):
                if not is_done:
                    print(f"{name} ...", file=sys.stderr, flush=True)
                found = runner.prepare_and_run()
        except LatentQAError as error:
            sys.exit(f"{name}: {error}")
        if found is not None:
            done[name] = found
            if words.write:
                write(PAGE, section(done, words))
    print(section(done, words))


def experiment(
    changes: Mapping[str, Any], files: Mapping[str, Path], words: argparse.Namespace
) -> Experiment:
    """Build the base experiment with `changes`, and the data file that they name."""
    data = changes.get("data", CROSSED)
    # as many steps whatever the number of stimuli
    epochs = words.epochs * (1 if data in (CROSSED, OFF_POLICY) else 4)
    given = {
        field: yaml.safe_load(text) for field, _, text in (s.partition("=") for s in words.set)
    }
    fields = {**BASE, "data.path": str(files[data]), "train.epochs": epochs}
    fields |= given | {field: value for field, value in changes.items() if field != "data"}
    whole: dict[str, Any] = {}
    for field, value in fields.items():
        *sections, last = field.split(".")
        if sections and sections[0] in fields and fields[sections[0]] is None:
            continue  # the whole section is left out
        place = whole
        for section_name in sections:
            place = place.setdefault(section_name, {})
        place[last] = value
    return Experiment.model_validate(whole)


def write_data(folder: Path, stimuli: int) -> dict[str, Path]:
    """Write the files of conversations; validation and test have stimuli of their own.

    Args:
        folder: receives them.
        stimuli: training stimuli of each control.
    """
    texts = PromptFiles()
    persona = personas(texts)
    values = [own.value for own in persona.values]
    messages = texts.seed_list("messages")
    held_out, few = max(2, stimuli // 4), max(1, stimuli // 4)
    test, validation = messages[:held_out], messages[held_out : held_out + max(1, stimuli // 7)]
    rest = messages[held_out + len(validation) :]
    train = {
        CROSSED: dict.fromkeys(values, rest[:stimuli]),
        SHARED: dict.fromkeys(values, rest[:few]),
        APART: {value: rest[i * few : (i + 1) * few] for i, value in enumerate(values)},
    }
    for name, own in train.items():
        rows = []
        for value in values:
            asked = [persona.question, persona.answer.format(value=value), "description"]
            control = persona.control.format(value=value)
            for split, chosen in (
                ("train", own[value]),
                ("validation", validation),
                (SPLIT, test),
            ):
                for stimulus in chosen:
                    rows += conversations(control, value, stimulus, split, asked)
        write_lines(folder / f"{name}.jsonl", rows)
    return {name: folder / f"{name}.jsonl" for name in train}


def personas(texts: PromptFiles | None = None) -> Attribute:
    """Read the personas of the packaged instructions."""
    return instruction_seeds(texts or PromptFiles()).attributes["persona"]


def conversations(
    control: str, value: str, stimulus: str, split: str, asked: list[str]
) -> list[dict[str, Any]]:
    """Make the two rows of a control with a stimulus: as a system prompt, and as a first turn."""
    said = {"role": "user", "content": stimulus, "segment": "stimulus"}
    hidden = {"content": control, "segment": "control"}
    acknowledged = {"role": "assistant", "content": ACKNOWLEDGED, "segment": "control"}
    about = {
        "questions": [dict(zip(("question", "answer", "type"), asked, strict=True))],
        "label": value.replace(" ", "_"),
        "kind": "instruction",
        "category": "persona",
        "split": split,
    }
    return [
        {"messages": [{"role": "system", **hidden}, said], **about},
        {"messages": [{"role": "user", **hidden}, acknowledged, said], **about},
    ]


def write_off_policy(folder: Path, base: RunResult) -> Path:
    """Write every stimulus with the reply that the target gave to it under the next control."""
    steps = {run.step.name: run.artifact.data for run in base.steps}
    rows = read_conversations(steps["complete"] / CONVERSATIONS_FILE)
    persona = personas()
    by_stimulus: dict[str, list[Conversation]] = defaultdict(list)
    for row in rows:
        if row.view == "stimulus_completion":
            by_stimulus[row.messages[-2].content].append(row)
    out = []
    for alike in by_stimulus.values():
        for row, other in zip(alike, [*alike[1:], alike[0]], strict=True):
            value = row.label.replace("_", " ")
            control, stimulus = row.messages[0].content, row.messages[-2].content
            asked = [persona.question, persona.answer.format(value=value), "description"]
            made = conversations(control, value, stimulus, row.split, asked)[1]
            reply = {"role": "assistant", "content": other.messages[-1].content}
            made["messages"].append({**reply, "segment": "completion"})
            out.append(made)
    write_lines(folder / f"{OFF_POLICY}.jsonl", out)
    return folder / f"{OFF_POLICY}.jsonl"


def write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as JSON, a line each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def section(done: Mapping[str, RunResult], words: argparse.Namespace) -> str:
    """Write the section of the page: a line a setting."""
    values, judged = len(personas().values), max(2, words.stimuli // 4)
    about = (
        f"`python scripts/ablations.py --stimuli {words.stimuli} --epochs {words.epochs:g}`: "
        f"{values} personas, {words.stimuli} training stimuli, {judged} others to judge; "
        f"{len(done)} of {len(SETTINGS)} settings are done. Nats a token, 95 % intervals over "
        "controls. *Closed* is the accuracy among four answers to one question, its chance the "
        "best without what is hidden. The last column is `right` less the base's on the same "
        "questions, paired by control, below zero is better; **bold** is an interval without zero. "
        "Each setting is one training: what another seed changes is in the line of that name.\n\n"
    )
    head = [
        *("setting", "n", "validation `right`", "right", "swapped", "hidden gain"),
        *("closed", "chance", "`right` less base"),
    ]
    base = done.get("base")
    return about + markdown(head, [line(name, run, base) for name, run in done.items()])


def line(name: str, result: RunResult, base: RunResult | None) -> list[str]:
    """Format what one setting measured; a view judged with the control visible is marked."""
    ((view, found),) = result.metrics["reading"][SPLIT].items()
    closed = found.get("identification") or {}
    away = "–"
    if base is not None and result is not base and view in base.metrics["reading"][SPLIT]:
        compared = compare_runs([_run("base", base), _run(name, result)])
        away = next((difference(own.metrics["right"][1]) for own in compared.losses), "–")
    return [
        name + (" (visible)" if view.endswith("+visible") else ""),
        str(found["grounded_gain"]["n"]),
        f"{result.metrics['train']['validation']:.2f}",
        *(interval_text(found["answer_loss"].get(arm)) for arm in ("right", "swapped")),
        interval_text(found.get("hidden_gain")),
        interval_text(closed.get("accuracy", {}).get("right")),
        interval_text(closed.get("chance")),
        away,
    ]


def difference(value: ComparedValue) -> str:
    """Format a difference to the base with its interval, in bold where that excludes zero."""
    found = value.difference
    assert found is not None, "compare_runs gives one to every run but the first"
    ends = "" if found.low is None else f" [{found.low:+.2f}, {found.high:+.2f}]"
    text = f"{found.estimate:+.2f}{ends}"
    return f"**{text}**" if found.excludes_zero else text


def interval_text(found: Mapping[str, Any] | None) -> str:
    """Format an estimate of `run --json` with its interval; a dash where there is none."""
    return "–" if found is None else str(Estimate.model_validate(found))


def _run(name: str, result: RunResult) -> Run:
    return Run(name=name, sets=({run.step.name: run.artifact for run in result.steps},))


def write(page: Path, text: str) -> None:
    """Put `text` between the page's marks."""
    whole = page.read_text(encoding="utf-8")
    if BEGIN not in whole:
        whole += f"\n## Ablations of masked reading\n\n{BEGIN}{END}\n"
    before, _, rest = whole.partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
