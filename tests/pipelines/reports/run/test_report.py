"""The report: what it says, what it never claims, and that missing pieces get a word."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from page_figures import unrendered_figures
from report_example import SMALL, Page, cell, hiding, leaf, report, without, write_example

from core.errors import DamagedError
from core.records.table_files import CONVERSATIONS_FILE, read_conversations, write_conversations
from pipelines.experiment.config import Experiment
from pipelines.reports.run.inputs import ReportInputs
from pipelines.reports.run.report import write_report

TWO_SPLITS = ("test", "test_ood")


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
            *("effects-test", "training"),
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
    where = "stimulus_completion (test)"
    assert f"reads what is hidden in {where}; elsewhere this run does not show" in page.text


def test_reading_is_drawn_against_the_control_effect(page: Page, out: Path) -> None:
    assert "the hidden gain (nats per token) against the control effect" in page.text
    assert (out / "figures" / "effects-test.csv").is_file()


def test_every_reading_has_its_verdict(page: Page) -> None:
    assert page.text.count("Reads. ") == 1
    assert page.text.count("Not shown. ") == 3
    assert page.text.count("Check only. ") == 2


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
        "bootstrap: 500",
    ):
        assert words in page.text, words


def test_counts_of_a_step_stand_in_for_its_list_of_dropped_rows(page: Page) -> None:
    assert "dump too long 3" in page.text


def test_answers_alike_are_counted(page: Page) -> None:
    assert "4 questions, 2 with identical answers" in page.text


def test_csv_holds_each_plotted_number(out: Path) -> None:
    lines = (out / "figures" / "reading-test.csv").read_text().splitlines()
    assert lines[0] == "split,view,measure,estimate,low,high,n"
    assert lines[1].startswith("test,control,right,2.14,")
    assert any(line.startswith("test,control,untrained right,2.74,") for line in lines)


def test_split_without_rows_gets_a_word(tmp_path: Path) -> None:
    page = report(write_example(tmp_path / "root", SMALL), tmp_path / "out")
    assert "Split test_ood has no rows, so it was not evaluated" in page.text


def test_too_few_controls_for_an_interval_is_no_reading(tmp_path: Path) -> None:
    few = cell(2.1, 2.9, 2.6, 2.7, 2.8, None, 6)
    reading = {"test": {"system": hiding(few, 0.8, 0.3)}}
    page = report(write_example(tmp_path / "root", reading), tmp_path / "out")
    assert "This run has too few controls for a verdict: at most 6 controls" in page.text
    assert "On 6 controls: the hidden gain, 0.80, has too few controls" in page.text


def test_a_view_of_which_no_row_could_be_measured_gets_a_word(tmp_path: Path) -> None:
    empty = {
        "answer_loss": {},
        "untrained": {},
        "best_uninformed": None,
        **dict.fromkeys(("grounded_gain", "information_gain", "below_untrained"), leaf(None)),
        "excluded": {"no_other_control": 4},
    }
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
    assert words in report(without(small, *gone), tmp_path).text


@pytest.mark.parametrize("name", ["losses.parquet", "log.jsonl", "dropped.parquet"])
def test_absent_files_do_not_stop_the_page(tmp_path: Path, name: str) -> None:
    inputs = write_example(tmp_path / "root", SMALL)
    for path in (tmp_path / "root").rglob(name):
        path.unlink()
    assert (
        "No masked view was evaluated: the control is visible in every view of this run."
        in report(inputs, tmp_path / "out").text
    )


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("metrics.json", lambda path: path.write_text('{"reading":')),
        ("metrics.json", lambda path: path.write_text('{"reading": {"test": {"control": {}}}}')),
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
    with unrendered_figures():
        page = write_report(inputs, tmp_path).read_text()
    assert "base_url=https://host/v1" in page
    assert "secret" not in page


def test_control_bytes_and_bidirectional_marks_are_made_visible(
    small: ReportInputs, tmp_path: Path
) -> None:
    inputs = dataclasses.replace(small, command="run \x9b2J \u202egnp.exe")
    with unrendered_figures():
        page = write_report(inputs, tmp_path).read_text()
    assert "run \ufffd2J \ufffdgnp.exe" in page
