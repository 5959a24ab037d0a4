"""The report: what it says, what it never claims, and that missing pieces get a word."""

from __future__ import annotations

import dataclasses
import json
import random
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.errors import DamagedError
from core.table_files import (
    CONVERSATIONS_FILE,
    DROPPED_FILE,
    QUESTIONS_FILE,
    read_conversations,
    write_conversations,
    write_dropped,
    write_questions,
)
from core.tables import VIEWS, Conversation, Dropped, Message, Question, control_id, example_id
from pipelines.experiment.config import Experiment
from pipelines.reports.run.inputs import ReportInputs, ReportStep
from pipelines.reports.run.report import write_report

KINDS = ("persona", "goal", "extractive")
NASTY = "<script>alert('x')</script> & \"quotes\" " + "supercalifragilistic" * 20
PERSONAS = (
    "Imagine you are a Victorian detective in London. Answer with deduction, and with tea.",
    "Adopt the persona of a deep-sea welder who counts in fathoms.",
    "You are a retired lighthouse keeper; keep every reply short and salty.",
    NASTY,
)


def leaf(estimate: float, half: float | None = 0.1, n: int = 40) -> dict[str, Any]:
    low, high = (None, None) if half is None else (estimate - half, estimate + half)
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


def example_reading() -> dict[str, Any]:
    return {
        "test": {
            "control": cell(2.14, 2.93, 2.52, 2.61, 2.74),
            "stimulus": cell(2.46, 2.58, 2.51, 2.60, 2.95),
            "stimulus_completion": cell(2.31, 2.55, 2.47, 2.56, 2.88),
            "system": cell(2.49, 2.53, 2.50, 2.57, 2.96),
        },
        "test_ood": {
            "control": cell(2.38, 2.99, 2.60, 2.66, 2.81, 0.14, 18),
            "stimulus": cell(2.61, 2.66, 2.60, 2.71, 2.97, None, 6),
        },
    }


def write_step(root: Path, step: str, record: dict[str, Any]) -> ReportStep:
    key = (step.encode().hex() * 8)[:64]
    path = root / step / key[:16]
    (path / "data").mkdir(parents=True)
    return ReportStep(step=step, key=key, path=path, record=record)


def write_example(root: Path, reading: dict[str, Any] | None = None) -> ReportInputs:
    """A whole run's artifacts below `root`: real layout, made-up numbers."""
    draw = random.Random(0)
    reading = reading or example_reading()
    common = {
        "created": "2026-11-22T15:04:05+00:00",
        "seconds": 12.25,
        "runtime": {"device": "cpu", "threads": 2},
        "machine": {"python": "3.11.2", "system": "Linux", "processor": "x86_64", "cores": 2},
        "output": "ab" * 32,
        "git": {"commit": "c0ffee" * 6, "dirty": True},
        "packages": {"torch": "2.13.0", "transformers": "5.23.0"},
    }
    steps = {
        name: write_step(root, name, dict(common))
        for name in ("conversations", "questions", "dump", "train", "evaluate")
    }

    conversations, questions = [], []
    splits = ("train",) * 7 + ("validation", "test", "test_ood")
    for i in range(160):
        view = VIEWS[i % 4]
        kind = KINDS[i % 3]
        text = PERSONAS[i % 4] + (f" ({i})" if i % 4 < 3 else "")
        messages = [Message(role="user", content=text, segment="control")]
        if view != "control":
            messages.append(Message(role="assistant", content="Certainly.", segment="control"))
            messages.append(
                Message(role="user", content="What is on your mind?", segment="stimulus")
            )
        rows = tuple(messages)
        conversation = Conversation(
            example_id=example_id(f"label-{i}", view, rows),
            control_id=control_id(kind, text),
            group_id=f"g{i}",
            kind=kind,
            category="<b>trades</b>" if i % 2 else "history",
            label=f"label-{i}",
            view=view,
            split=splits[(i // 4) % 10],
            source="import",
            messages=rows,
        )
        conversations.append(conversation)
        for question in ("Who is speaking?", "How would it greet a stranger?"):
            questions.append(
                Question(
                    example_id=conversation.example_id, question=question, answer="A detective."
                )
            )
    data = steps["conversations"].path / "data"
    write_conversations(data / CONVERSATIONS_FILE, conversations)
    write_dropped(
        data / DROPPED_FILE,
        [
            Dropped(reason="label without row", where=f"qa.json:{i}", detail=NASTY, raw="{}")
            for i in range(63)
        ],
    )
    data = steps["questions"].path / "data"
    write_questions(data / QUESTIONS_FILE, questions)
    write_dropped(data / DROPPED_FILE, [])

    steps["dump"].record["counts"] = {
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
    lines: list[dict[str, Any]] = []
    for step in range(1, 121):
        loss = 1.55 + 1.5 * 0.97**step + draw.gauss(0, 0.16)
        rate = 1e-3 * (1 - step / 120)
        lines.append({"step": step, "loss": loss, "learning_rate": rate})
        if step % 30 == 0:
            right = 2.75 - 0.5 * min(step, 90) / 90 + (0.05 if step == 120 else 0.0)
            lines.append({"step": step, "validation": {"right": right, "rows": 32}})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (steps["train"].path / "data" / "log.jsonl").write_text(text)
    steps["train"].record["counts"] = {
        "steps": 120,
        "questions": 1920,
        "questions_per_second": 5.31,
        "loss": 1.6123,
        "best_step": 90,
        "validation": 2.25,
        "untrained_validation": 2.75,
        "trainable_parameters": 4_884_480,
    }

    data = steps["evaluate"].path / "data"
    (data / "metrics.json").write_text(json.dumps({"reading": reading}))
    losses, answers = [], []
    for split, views in reading.items():
        for view, found in views.items():
            for i in range(found["answer_loss"]["right"]["n"]):
                base = draw.gauss(0, 0.35)
                for condition in ("right", "other"):
                    mean = found["answer_loss"][condition]["estimate"]
                    for question in ("Who is speaking?", "How would it greet a stranger?"):
                        losses.append(
                            {
                                "split": split,
                                "view": view,
                                "kind": KINDS[i % 3],
                                "category": "history",
                                "control_id": f"c{i}",
                                "example_id": f"e{i}",
                                "question": question,
                                "condition": condition,
                                "loss": mean + base + draw.gauss(0, 0.15),
                                "tokens": 21,
                            }
                        )
            for i in range(2):
                for question in ("Who is speaking?", "How would it greet a stranger?"):
                    answers.append(
                        {
                            "split": split,
                            "view": view,
                            "kind": KINDS[i],
                            "category": "history",
                            "label": f"label-{i}",
                            "example_id": f"e{i}",
                            "control": PERSONAS[i * 3],
                            "question": question,
                            "gold": "The assistant speaks as a detective of Victorian London.",
                            "right": "The assistant will adopt the persona of a detective.",
                            "other": "The assistant will adopt the persona of a detective."
                            if i
                            else "The assistant answers as a welder who counts in fathoms.",
                            "other_control": PERSONAS[1],
                        }
                    )
    pq.write_table(pa.Table.from_pylist(losses), data / "losses.parquet")
    pq.write_table(pa.Table.from_pylist(answers), data / "answers.parquet")
    return ReportInputs(
        experiment=Experiment.model_validate(
            {
                "experiment": "latentqa_eval",
                "data": {"path": "data/latentqa_eval", "splits": {"test": 0.2}},
                "dump": {"model": "embedded", "layers": [14], "store_dtype": "bfloat16"},
                "train": {"lora": {"rank": 16, "alpha": 32.0}, "learning_rate": 1e-3},
                "evaluate": {"splits": ["test", "test_ood"], "answers": 2, "bootstrap": 10_000},
            }
        ),
        command="latentqa run experiments/latentqa_eval.yaml",
        metrics={"reading": reading},
        steps=tuple(steps.values()),
    )


SMALL = {"test": {"control": cell(2.1, 2.9, 2.6, 2.7, 2.8)}}
TWO_SPLITS = ("test", "test_ood")


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
    kept = tuple(step for step in inputs.steps if step.step not in steps)
    return dataclasses.replace(inputs, steps=kept)


def report(inputs: ReportInputs, out: Path) -> Page:
    return Page(write_report(inputs, out).read_text())


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> ReportInputs:
    return write_example(tmp_path_factory.mktemp("root"))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> ReportInputs:
    """One split and view: as much as the tests of absent pieces need."""
    return write_example(tmp_path_factory.mktemp("small"), SMALL)


@pytest.fixture(scope="module")
def out(example: ReportInputs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out")
    write_report(example, out)
    return out


@pytest.fixture(scope="module")
def page(out: Path) -> Page:
    return Page((out / "report.html").read_text())


def test_files_beside_the_page(out: Path) -> None:
    names = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    figures = {
        f"figures/{name}.{end}"
        for name in (
            *(f"{kind}-{s}" for kind in ("reading", "gains", "controls") for s in TWO_SPLITS),
            "training",
        )
        for end in ("svg", "png", "csv")
    }
    assert names == {"report.html", "reading.png"} | figures


def test_a_rerun_of_hits_writes_the_same_bytes(small: ReportInputs, tmp_path: Path) -> None:
    write_report(small, tmp_path / "first")
    write_report(small, tmp_path / "again")
    first = {p.name: p.read_bytes() for p in (tmp_path / "first").rglob("*.*")}
    again = {p.name: p.read_bytes() for p in (tmp_path / "again").rglob("*.*")}
    assert len(first) == 2 + 4 * 3
    assert again == first


def test_page_needs_nothing_from_outside(page: Page) -> None:
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    addresses = [
        value for _, name, value in page.attributes if name in ("src", "href", "xlink:href")
    ]
    assert all(value.startswith("#") for value in addresses)


def test_style_sheet_asks_for_nothing_from_outside(out: Path) -> None:
    style = (out / "report.html").read_text().split("</style>")[0]
    assert "@import" not in style
    assert "url(" not in style


def test_ids_are_unique(page: Page) -> None:
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))


def test_text_of_rows_is_escaped(out: Path, page: Page) -> None:
    assert "<script>alert" not in (out / "report.html").read_text()
    assert "<b>trades</b>" not in (out / "report.html").read_text()
    assert "<script>alert('x')</script> & \"quotes\"" in page.text


def test_headline_names_where_it_reads_and_no_more(page: Page) -> None:
    where = "control (test), stimulus_completion (test) and control (test_ood)"
    assert f"The decoder reads in {where}; elsewhere this run does not show it." in page.text


def test_every_reading_has_its_verdict(page: Page) -> None:
    assert page.text.count("Reads. ") == 3
    assert page.text.count("Not shown. ") == 3


def test_what_was_run_data_store_and_training_are_there(page: Page) -> None:
    for words in (
        "latentqa run experiments/latentqa_eval.yaml",
        "label without row",
        "18\u202f422",
        "21.2 MB",
        "bfloat16",
        "3.1e-03",
        "4\u202f884\u202f480",
        "step 90",
        "2026-11-22 15:04",
        "Linux x86_64, 2 cores, Python 3.11.2",
        "c0ffeec0ffee, with uncommitted changes",
        "bootstrap: 10000",
    ):
        assert words in page.text, words


def test_counts_of_a_step_stand_in_for_its_list_of_dropped_rows(page: Page) -> None:
    assert "dump too long 3" in page.text


def test_answers_alike_are_counted(page: Page) -> None:
    assert "4 questions, 2 answered word for word alike" in page.text


def test_csv_holds_each_plotted_number(out: Path) -> None:
    lines = (out / "figures" / "reading-test.csv").read_text().splitlines()
    assert lines[0] == "split,view,measure,estimate,low,high,n"
    assert lines[1].startswith("test,control,right,2.14,")
    assert any(line.startswith("test,control,untrained right,2.74,") for line in lines)


def test_split_without_rows_gets_a_word(tmp_path: Path) -> None:
    page = report(write_example(tmp_path / "root", SMALL), tmp_path / "out")
    assert "Split test_ood was asked for and has no rows" in page.text


def test_too_few_controls_for_an_interval_is_no_reading(tmp_path: Path) -> None:
    reading = {"test": {"control": cell(2.1, 2.9, 2.6, 2.7, 2.8, None, 6)}}
    page = report(write_example(tmp_path / "root", reading), tmp_path / "out")
    assert "This run could judge nothing: it has at most 6 controls" in page.text
    assert "On 6 controls: the grounded gain, 0.80, has too few controls" in page.text


def test_a_view_of_which_no_row_could_be_measured_gets_a_word(tmp_path: Path) -> None:
    empty = {"answer_loss": {}, "excluded": {"no_other_control": 4}}
    reading = {"test": {**SMALL["test"], "system": empty}, "test_ood": {"system": empty}}
    inputs = write_example(tmp_path / "root", SMALL)
    path = next((tmp_path / "root").rglob("metrics.json"))
    path.write_text(json.dumps({"reading": reading}))
    page = report(inputs, tmp_path / "out")
    assert "Not shown. No row could be measured: no row has another control" in page.text
    assert "test_ood, system: left out 4 (no other control)." in page.text


def test_no_answers_gets_a_word(tmp_path: Path) -> None:
    root = tmp_path / "root"
    inputs = write_example(root, SMALL)
    empty = pq.read_table(next(root.rglob("answers.parquet"))).slice(0, 0)
    pq.write_table(empty, next(root.rglob("answers.parquet")))
    assert "No answers were written" in report(inputs, tmp_path / "out").text


@pytest.mark.parametrize(
    ("gone", "words"),
    [
        (("evaluate",), "Nothing was evaluated, so nothing is claimed."),
        (("train", "evaluate"), "No training curve"),
        (("dump", "train", "evaluate"), "No activations were stored in this run."),
        (("conversations", "questions"), "No data table was made in this run."),
        (("conversations", "questions", "dump", "train", "evaluate"), "No step has finished."),
    ],
)
def test_absent_steps_get_a_word(
    small: ReportInputs, tmp_path: Path, gone: tuple[str, ...], words: str
) -> None:
    inputs = dataclasses.replace(without(small, *gone), metrics={})
    assert words in report(inputs, tmp_path).text


@pytest.mark.parametrize("name", ["losses.parquet", "log.jsonl", "dropped.parquet"])
def test_absent_files_do_not_stop_the_page(tmp_path: Path, name: str) -> None:
    inputs = write_example(tmp_path / "root", SMALL)
    for path in (tmp_path / "root").rglob(name):
        path.unlink()
    assert (
        "The decoder reads, in every view judged: control (test)."
        in report(inputs, tmp_path / "out").text
    )


def test_metrics_stand_in_for_a_missing_evaluation_file(
    small: ReportInputs, tmp_path: Path
) -> None:
    assert (
        "The decoder reads, in every view judged: control (test)."
        in report(without(small, "evaluate"), tmp_path).text
    )


def test_empty_records_do_not_stop_the_page(small: ReportInputs, tmp_path: Path) -> None:
    steps = tuple(dataclasses.replace(step, record={}) for step in small.steps)
    assert (
        "The decoder reads, in every view judged: control (test)."
        in report(dataclasses.replace(small, steps=steps), tmp_path).text
    )


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("metrics.json", lambda path: path.write_text('{"reading":')),
        ("log.jsonl", lambda path: path.write_text('{"step": 1, "lo')),
        ("answers.parquet", lambda path: path.write_bytes(b"PAR1")),
    ],
)
def test_damaged_files_are_named(
    tmp_path: Path, name: str, damage: Callable[[Path], object]
) -> None:
    inputs = write_example(tmp_path / "root", SMALL)
    path = next((tmp_path / "root").rglob(name))
    damage(path)
    with pytest.raises(DamagedError, match=re.escape(f"{path}: not")) as caught:
        write_report(inputs, tmp_path / "out")
    assert caught.value.path == path
    assert "\n" not in str(caught.value)


def test_the_header_says_what_was_read_from_whose_rows(small: ReportInputs, tmp_path: Path) -> None:
    train = small.step("train")
    assert train is not None
    sidecar = train.path / "data" / "latentqa.json"
    sidecar.write_text(json.dumps({"decoder": {"read_layers": [7, 9]}, "read_layer": 7}))
    words = header(report(small, tmp_path))
    sidecar.unlink()
    assert "target embedded" in words
    assert "read layers 7, 9" in words
    # of all views of the experiment those of which a training row is there
    assert "views trained on control, stimulus, stimulus_completion, system" in words
    assert "rows code (extractive), code (goal) and code (persona)" in words


def test_the_header_names_imported_files_and_models(small: ReportInputs, tmp_path: Path) -> None:
    step = small.step("conversations")
    assert step is not None
    path = step.path / "data" / CONVERSATIONS_FILE
    before = path.read_bytes()
    rows = read_conversations(path)
    provenances = ({"file": "control.json"}, {"generator": "gpt-x"})
    changed = [
        dataclasses.replace(row, provenance=provenances[i % 2], view="control")
        for i, row in enumerate(rows)
    ]
    write_conversations(path, changed)
    words = header(report(without(small, "questions"), tmp_path))
    path.write_bytes(before)
    assert "rows control.json and written by gpt-x" in words
    assert "views trained on control read layer" in words


def header(page: Page) -> str:
    return page.text.split("experiment report")[1].split("What was learned")[0]


def test_dropped_rows_stand_near_the_top(page: Page) -> None:
    top = page.text.split("Groups")[0].split("All numbers")[0]
    assert "dump: 3 of 163 (too long 3)." in top
    assert "conversations: 63 (label without row 63);" in top


def test_credentials_never_stand_in_the_page(small: ReportInputs, tmp_path: Path) -> None:
    address = "https://me:secret@host/v1?key=secret"
    experiment = small.experiment.model_dump(mode="json")
    quality = {"endpoint": {"model": "judge", "base_url": address}}
    changed = Experiment.model_validate_json(json.dumps({**experiment, "quality": quality}))
    inputs = dataclasses.replace(
        small,
        experiment=changed,
        command=f"latentqa run x.yaml --set quality.endpoint.base_url={address}",
    )
    page = write_report(inputs, tmp_path).read_text()
    assert "base_url=https://host/v1" in page
    assert "secret" not in page
