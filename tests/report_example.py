"""A run as a report reads it: artifacts in their real layout with made-up numbers, and its page."""

from __future__ import annotations

import html
import json
import random
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from page_figures import unrendered_figures

from core.records.table_files import (
    CONVERSATIONS_FILE,
    DROPPED_FILE,
    QUESTIONS_FILE,
    write_conversations,
    write_dropped,
    write_questions,
)
from core.records.tables import (
    VIEWS,
    Conversation,
    Dropped,
    Message,
    Question,
    Split,
    control_id,
    example_id,
)
from pipelines.artifacts.artifact import RECORD, Artifact
from pipelines.experiment.config import Experiment
from pipelines.reports.run.inputs import ReportInputs
from pipelines.reports.run.report import write_report
from pipelines.steps.shared.metrics import metrics_of

KINDS = ("persona", "goal", "extractive")
NASTY = "<script>alert('x')</script> & \"quotes\" " + "supercalifragilistic" * 20
PERSONAS = (
    "Imagine you are a Victorian detective in London. Answer with deduction, and with tea.",
    "Adopt the persona of a deep-sea welder who counts in fathoms.",
    "You are a retired lighthouse keeper; keep every reply short and salty.",
    NASTY,
)
QUESTIONS = ("Who is speaking?", "How would it greet a stranger?")
COMMON: dict[str, Any] = {
    "created": "2026-11-22T15:04:05+00:00",
    "seconds": 12.25,
    "runtime": {"device": "cpu", "threads": 2},
    "machine": {"python": "3.11.2", "system": "Linux", "processor": "x86_64", "cores": 2},
    "output": "ab" * 32,
    "git": {"commit": "c0ffee" * 6, "dirty": True},
    "packages": {"torch": "2.13.0", "transformers": "5.23.0"},
}
DUMPED = {
    "sequences": 160,
    "tokens": 18422,
    "bytes": 21_234_567,
    "tokens_per_second": 431.77,
    "layers": [14],
    "store_dtype": "bfloat16",
    "compute_dtype": "float32",
    "canary": {"rows": 8, "max_relative": 3.1e-3, "tolerance": 1e-2},
    "dropped": {"too long": 3},
}
TRAINED = {
    "steps": 120,
    "questions": 1920,
    "questions_per_second": 5.31,
    "loss": 1.6123,
    "best_step": 90,
    "validation": 2.25,
    "untrained_validation": 2.75,
    "trainable_parameters": 4_884_480,
}


def leaf(estimate: float | None, half: float | None = 0.1, n: int = 40) -> dict[str, Any]:
    low, high = (
        (None, None) if half is None or estimate is None else (estimate - half, estimate + half)
    )
    return {"estimate": estimate, "low": low, "high": high, "n": n}


def cell(
    right: float,
    other: float,
    mean: float,
    none: float,
    untrained: float,
    half: float | None = 0.09,
    n: int = 40,
) -> dict[str, Any]:
    best = min(("other", other), ("mean", mean), ("none", none), key=lambda pair: pair[1])
    return {
        "answer_loss": {
            "right": leaf(right, 0.12 if half else None, n),
            "other": leaf(other, 0.14 if half else None, n),
            "mean": leaf(mean, 0.13 if half else None, n),
            "none": leaf(none, 0.15 if half else None, n),
        },
        "untrained": {
            "right": leaf(untrained, 0.16 if half else None, n),
            "other": leaf(untrained + 0.5, 0.16 if half else None, n),
        },
        "grounded_gain": leaf(other - right, half, n),
        "information_gain": leaf(best[1] - right, half, n),
        "below_untrained": leaf(untrained - right, half, n),
        "best_uninformed": best[0],
        "excluded": {"no control of the same kind": 2} if n < 40 else {},
    }


def hiding(found: dict[str, Any], gain: float, lead: float) -> dict[str, Any]:
    """Return the metrics of a masked view: the hidden gain, and the lead over trained rivals."""
    n = found["answer_loss"]["right"]["n"]
    half = None if n < 8 else 0.05
    swapped = found["answer_loss"]["right"]["estimate"] + gain
    return {
        **found,
        "answer_loss": {**found["answer_loss"], "swapped": leaf(swapped, half, n)},
        "hidden_gain": leaf(gain, half, n),
        "below_rivals": leaf(lead, half, n),
    }


def example_reading() -> dict[str, Any]:
    return {
        "test": {
            "control": cell(2.14, 2.93, 2.52, 2.61, 2.74),
            "stimulus": hiding(cell(2.46, 2.58, 2.51, 2.60, 2.95), 0.01, -0.02),
            "stimulus_completion": hiding(cell(2.31, 2.55, 2.47, 2.56, 2.88), 0.2, 0.1),
            "system": hiding(cell(2.49, 2.53, 2.50, 2.57, 2.96), 0.1, 0.0),
        },
        "test_ood": {
            "control": cell(2.38, 2.99, 2.60, 2.66, 2.81, 0.14, 18),
            "stimulus": hiding(cell(2.61, 2.66, 2.60, 2.71, 2.97, None, 6), 0.1, 0.1),
        },
    }


def write_step(root: Path, step: str, counts: dict[str, Any] | None = None) -> Artifact:
    """Write the folder and the record of a step's artifact."""
    key = (step.encode().hex() * 8)[:64]
    made = Artifact(root / step / key[:16])
    made.data.mkdir(parents=True, exist_ok=True)
    own = {"kind": step, "key": key, "files": [], "inputs": {}, "counts": counts or {}}
    (made.path / RECORD).write_text(json.dumps({**COMMON, **own}))
    return made


def write_example(root: Path, reading: dict[str, Any] | None = None) -> ReportInputs:
    """Write the artifacts of a whole run below `root`: real layout, made-up numbers."""
    draw = random.Random(0)
    reading = reading or example_reading()
    counts: dict[str, dict[str, Any]] = {"dump": DUMPED, "train": TRAINED}
    steps = {
        name: write_step(root, name, counts.get(name))
        for name in ("conversations", "questions", "dump", "train", "evaluate")
    }
    data = {name: step.data for name, step in steps.items()}
    _write_rows(data["conversations"], data["questions"])
    (data["train"] / "log.jsonl").write_text(_training_log(draw))
    _write_evaluation(data["evaluate"], reading, draw)
    return ReportInputs(
        experiment=Experiment.model_validate(
            {
                "experiment": "latentqa_eval",
                "data": {"path": "data/latentqa_eval", "splits": {"test": 0.2}},
                "dump": {"model": "embedded", "layers": [14], "store_dtype": "bfloat16"},
                "train": {"lora": {"rank": 16, "alpha": 32.0}, "learning_rate": 1e-3},
                "evaluate": {"splits": ["test", "test_ood"], "answers": 2, "bootstrap": 500},
            }
        ),
        command="latentqa run experiments/latentqa_eval.yaml",
        metrics={"reading": reading},
        steps=tuple(steps.values()),
    )


def _write_rows(conversations_folder: Path, questions_folder: Path) -> None:
    conversations, questions = [], []
    held_out: list[Split] = ["validation", "test", "test_ood"]
    train: list[Split] = ["train"]
    splits = train * 7 + held_out
    for i in range(160):
        view, kind = VIEWS[i % 4], KINDS[i % 3]
        text = PERSONAS[i % 4] + (f" ({i})" if i % 4 < 3 else "")
        messages = [Message(role="user", content=text, segment="control")]
        if view != "control":
            messages += [
                Message(role="assistant", content="Certainly.", segment="control"),
                Message(role="user", content="What is on your mind?", segment="stimulus"),
            ]
        conversation = Conversation(
            example_id=example_id(f"label-{i}", view, tuple(messages)),
            control_id=control_id(kind, text),
            group_id=f"g{i}",
            kind=kind,
            category="<b>trades</b>" if i % 2 else "history",
            label=f"label-{i}",
            view=view,
            split=splits[(i // 4) % 10],
            source="import",
            messages=tuple(messages),
        )
        conversations.append(conversation)
        questions += [
            Question(example_id=conversation.example_id, question=question, answer="A detective.")
            for question in QUESTIONS
        ]
    write_conversations(conversations_folder / CONVERSATIONS_FILE, conversations)
    dropped = [
        Dropped(reason="label without row", where=f"qa.json:{i}", detail=NASTY, raw="{}")
        for i in range(63)
    ]
    write_dropped(conversations_folder / DROPPED_FILE, dropped)
    write_questions(questions_folder / QUESTIONS_FILE, questions)
    write_dropped(questions_folder / DROPPED_FILE, [])


def _training_log(draw: random.Random) -> str:
    lines: list[dict[str, Any]] = []
    for step in range(1, 121):
        loss = 1.55 + 1.5 * 0.97**step + draw.gauss(0, 0.16)
        rate = 1e-3 * (1 - step / 120)
        lines.append({"step": step, "loss": loss, "learning_rate": rate})
        if step % 30 == 0:
            right = 2.75 - 0.5 * min(step, 90) / 90 + (0.05 if step == 120 else 0.0)
            lines.append({"step": step, "validation": {"right": right, "rows": 32}})
    return "".join(json.dumps(line) + "\n" for line in lines)


def _write_evaluation(folder: Path, reading: dict[str, Any], draw: random.Random) -> None:
    (folder / "metrics.json").write_text(json.dumps({"reading": reading}))
    losses, answers = [], []
    for split, views in reading.items():
        for view, found in views.items():
            about = {"split": split, "view": view, "category": "history"}
            costs = [
                *((name, own["estimate"]) for name, own in found["answer_loss"].items()),
                *(
                    (f"untrained_{name}", own["estimate"])
                    for name, own in found["untrained"].items()
                ),
            ]
            for i in range(found["answer_loss"]["right"]["n"]):
                base = draw.gauss(0, 0.35)
                losses += [
                    {
                        **about,
                        "kind": KINDS[i % 3],
                        "control_id": f"c{i}",
                        "example_id": f"e{i}",
                        "question": question,
                        "condition": condition,
                        "type": "description",
                        "loss": cost + base + draw.gauss(0, 0.15),
                        "control_effect": i / 8 if view == "stimulus_completion" else None,
                    }
                    for condition, cost in costs
                    for question in QUESTIONS
                ]
            own = "The assistant will adopt the persona of a detective."
            answers += [
                {
                    **about,
                    "kind": KINDS[i],
                    "label": f"label-{i}",
                    "example_id": f"e{i}",
                    "control": PERSONAS[i * 3],
                    "question": question,
                    "gold": "The assistant speaks as a detective of Victorian London.",
                    "right": own,
                    "other": own if i else "The assistant answers as a welder.",
                    "other_control": PERSONAS[1],
                }
                for i in range(2)
                for question in QUESTIONS
            ]
    pq.write_table(pa.Table.from_pylist(losses), folder / "losses.parquet")
    pq.write_table(pa.Table.from_pylist(answers), folder / "answers.parquet")


SMALL = {"test": {"control": cell(2.1, 2.9, 2.6, 2.7, 2.8)}}


class Page(HTMLParser):
    """The tags, the attributes and the text of a page, as a browser would find them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.feed(text)
        self.text = re.sub("[ \n]+", " ", self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.text += " " if tag in ("td", "th") else ""
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


def without(inputs: ReportInputs, *steps: str) -> ReportInputs:
    kept = tuple(step for step in inputs.steps if step.kind not in steps)
    return replace(inputs, steps=kept)


def report_text(out: Path, experiment: Experiment, **counts: dict[str, Any]) -> str:
    """Write the report of steps that are known by their counts alone, and return its words."""
    metrics = metrics_of({step: {"counts": found} for step, found in counts.items()})
    inputs = ReportInputs(experiment=experiment, command="", metrics=metrics, steps=())
    with unrendered_figures():
        page = re.sub(r"<[^>]+>", " ", write_report(inputs, out).read_text())
    return html.unescape(" ".join(page.split()))


def report(inputs: ReportInputs, out: Path) -> Page:
    """Write the report without rendering its figures, and return its page."""
    with unrendered_figures():
        return Page(write_report(inputs, out).read_text())
