"""What a run makes, finds, mends and refuses."""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import WeakSet

import chain
import pytest
import tiny
import torch
from fake_steps import FakeSteps, experiment, runner

from activation_store.target import load
from core.errors import ConfigError, DamagedError, DataError, ModelError, StorageError
from core.files import sha256_file
from pipelines.artifacts.refs import Refs
from pipelines.artifacts.root import ArtifactRoot
from pipelines.running.results import RunResult
from pipelines.running.runner import Runner
from pipelines.steps.order import every_step
from pipelines.steps.shared.step import ExternalInputs

STEPS = ["conversations", "questions", "dump", "train", "evaluate"]


@pytest.fixture
def steps(tmp_path: Path) -> FakeSteps:
    return FakeSteps(tmp_path / "log", pieces=2)


def made(result: RunResult) -> list[str]:
    return [run.step.name for run in result.steps if not run.cached]


def with_step(made: Runner, name: str, **changes: Any) -> Runner:
    """Make a runner of the same table, in which one step is another."""
    table = [replace(step, **changes) if step.name == name else step for step in made.steps]
    return Runner(made.experiment, made.root, steps=table)


def path_of(result: RunResult, step: str) -> Path:
    return next(run.artifact.path for run in result.steps if run.step.name == step)


def test_the_first_run_makes_every_step(tmp_path: Path, steps: FakeSteps) -> None:
    assert made(runner(tmp_path / "r", steps).run()) == STEPS


def test_json_has_the_documented_shape(tmp_path: Path, steps: FakeSteps) -> None:
    document = json.loads(json.dumps(runner(tmp_path / "r", steps).run().to_json()))
    assert list(document) == ["experiment", "root", "steps", "metrics", "report"]
    assert document["root"] == str(tmp_path / "r")
    assert [list(step) for step in document["steps"]] == [
        ["step", "key", "path", "cached", "seconds"]
    ] * len(STEPS)
    assert [step["step"] for step in document["steps"]] == STEPS
    assert list(document["metrics"]) == ["data", "store", "train", "reading", "cost"]
    assert document["metrics"]["data"] == {
        "controls": 3,
        "examples": 5,
        "questions": 7,
        "dropped": {"empty": 3, "orphan": 1},
    }
    assert Path(document["report"]).read_text() == "<p>report</p>"


def test_the_next_step_finds_no_model_of_the_one_before(
    tmp_path: Path, steps: FakeSteps, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    monkeypatch.setattr(load, "_LOADED", WeakSet())

    def look_then_load(step: str, piece: int) -> None:
        if piece == 0:
            found.append(load.any_loaded())
        if step == "dump":
            cpu = torch.device("cpu")
            net: Any = load.load_model(chain.model(), dtype="float32", device=cpu)
            net.refers_to_itself = [net]

    steps.before_piece = look_then_load
    runner(tmp_path / "r", steps).run()
    assert not any(found)
    assert not load.any_loaded()


def test_an_unchanged_rerun_makes_nothing(tmp_path: Path, steps: FakeSteps) -> None:
    first = runner(tmp_path / "r", steps).run()
    steps.written()
    again = runner(tmp_path / "r", steps).run()
    assert steps.written() == []
    assert again.to_json()["metrics"] == first.to_json()["metrics"]
    assert all(run.cached for run in again.steps)


@pytest.mark.parametrize(
    ("section", "change", "again"),
    [
        ("dump", {"layers": [15]}, ["dump", "train", "evaluate"]),
        ("evaluate", {"answers": 1}, ["evaluate"]),
        ("runtime", {"threads": 1}, []),
    ],
)
def test_a_change_makes_what_depends_on_it(
    tmp_path: Path, steps: FakeSteps, section: str, change: Any, again: list[str]
) -> None:
    runner(tmp_path / "r", steps).run()
    assert made(runner(tmp_path / "r", steps, **{section: change}).run()) == again


def test_until_stops_there_without_a_report(tmp_path: Path, steps: FakeSteps) -> None:
    result = runner(tmp_path / "r", steps, until="dump").run()
    assert made(result) == ["conversations", "questions", "dump"]
    assert result.report is None


def test_a_run_that_stopped_early_has_a_name_too(tmp_path: Path, steps: FakeSteps) -> None:
    refs = Refs(ArtifactRoot(tmp_path / "r"))
    first = runner(tmp_path / "r", steps, until="dump").run()
    assert str(first.name) == "fake:1"
    assert refs.resolve("fake", "dump") == first.steps[2].artifact
    whole = runner(tmp_path / "r", steps).run()
    again = runner(tmp_path / "r", steps, until="dump").run()
    assert (str(whole.name), str(again.name)) == ("fake:2", "fake:2")
    other = runner(tmp_path / "r", steps, until="dump", dump={"layers": [3]}).run()
    assert str(other.name) == "fake:3"
    assert refs.resolve("fake", "train") == whole.steps[3].artifact


def test_until_an_unknown_step_names_the_steps(tmp_path: Path, steps: FakeSteps) -> None:
    with pytest.raises(ConfigError) as caught:
        runner(tmp_path / "r", steps, until="dmup")
    assert str(caught.value) == (
        "--until dmup: no such step; expected one of conversations, questions, dump, train, "
        "evaluate."
    )


def test_a_deleted_file_redoes_that_step_alone(tmp_path: Path, steps: FakeSteps) -> None:
    first = runner(tmp_path / "r", steps).run()
    steps.written()
    (path_of(first, "dump") / "data" / "piece-1").unlink()
    assert made(runner(tmp_path / "r", steps).run()) == ["dump"]
    assert steps.written() == ["dump 1"]


def test_a_deleted_record_redoes_that_step_alone(tmp_path: Path, steps: FakeSteps) -> None:
    first = runner(tmp_path / "r", steps).run()
    (path_of(first, "train") / "record.json").unlink()
    assert made(runner(tmp_path / "r", steps).run()) == ["train"]


def test_a_deleted_artifact_redoes_that_step_alone(tmp_path: Path, steps: FakeSteps) -> None:
    first = runner(tmp_path / "r", steps).run()
    os.rename(path_of(first, "questions"), tmp_path / "gone")
    assert made(runner(tmp_path / "r", steps).run()) == ["questions"]


def test_other_bytes_of_a_redone_step_redo_what_depends_on_them(
    tmp_path: Path, steps: FakeSteps
) -> None:
    first = runner(tmp_path / "r", steps).run()
    (path_of(first, "questions") / "data" / "piece-0").unlink()
    steps.digits["questions"] = "changed"
    assert made(runner(tmp_path / "r", steps).run()) == ["questions", "train", "evaluate"]


def test_a_flipped_byte_is_mended_where_it_is_read(
    tmp_path: Path, steps: FakeSteps, capsys: pytest.CaptureFixture[str]
) -> None:
    first = runner(tmp_path / "r", steps).run()
    steps.written()
    piece = path_of(first, "dump") / "data" / "piece-0"
    piece.write_bytes(piece.read_bytes().replace(b"dump", b"dumq"))
    result = runner(tmp_path / "r", steps, evaluate={"answers": 1}).run()
    assert made(result) == ["dump", "evaluate"]
    assert steps.written() == ["dump 0", "evaluate 0", "evaluate 1", "report 0", "report 1"]
    lines = [line for line in capsys.readouterr().err.splitlines() if "damaged" in line]
    assert len(lines) == 1
    key = first.steps[2].artifact.key[:16]
    assert lines[0].startswith(f"dump/{key} is damaged and is recomputed")


def swap_bytes(path: Path, old: bytes, new: bytes) -> None:
    """Write other bytes of the same size, and give the file the time that it had."""
    stat = path.stat()
    path.write_bytes(path.read_bytes().replace(old, new))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_an_input_is_hashed_before_a_step_opens_it(tmp_path: Path, steps: FakeSteps) -> None:
    first = runner(tmp_path / "r", steps).run()
    before = (path_of(first, "train") / "data" / "piece-0").read_bytes()
    steps.written()
    other = FakeSteps(tmp_path / "other", digits={"train": "X"})
    adapter = runner(tmp_path / "r2", other, train={"lora": {"rank": 3}}).run()
    swapped = path_of(first, "train") / "data" / "piece-0"
    stat = swapped.stat()
    valid = (path_of(adapter, "train") / "data" / "piece-0").read_bytes()
    swapped.write_bytes(valid[: stat.st_size])  # a step that opens it would take it for good
    os.utime(swapped, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    result = runner(tmp_path / "r", steps, evaluate={"answers": 1}).run()
    assert made(result) == ["train", "evaluate"]
    assert swapped.read_bytes() == before


def test_the_report_opens_nothing_that_is_not_as_it_was_committed(
    tmp_path: Path, steps: FakeSteps
) -> None:
    made_of = runner(tmp_path / "r", steps)
    changes = {"inputs": {"evaluate": "evaluate"}, "reads_all": True}
    first = with_step(made_of, "report", **changes).run()
    swap_bytes(path_of(first, "questions") / "data" / "piece-0", b"questions 0", b"0 questions")
    (report,) = made_of.root.artifacts("report")
    shutil.rmtree(report.path)
    steps.written()
    with_step(made_of, "report", **changes).run()
    assert {line.split()[0] for line in steps.written()} == {"questions", "report"}


def test_the_report_of_an_experiment_checks_all_steps() -> None:
    (report,) = [step for step in every_step() if step.name == "report"]
    assert report.reads_all


def test_rotated_answers_of_the_same_size_are_never_trained_on(
    tmp_path: Path, steps: FakeSteps
) -> None:
    first = runner(tmp_path / "r", steps).run()
    questions = path_of(first, "questions") / "data" / "piece-0"
    kept = questions.read_bytes()
    swap_bytes(questions, b"questions 0", b"0 questions")
    result = runner(tmp_path / "r", steps, train={"lora": {"rank": 3}}).run()
    assert made(result) == ["questions", "train", "evaluate"]
    assert questions.read_bytes() == kept


@pytest.mark.parametrize("changed_in", ["questions", "dump"])
def test_a_target_that_changes_under_a_run_makes_no_artifact(
    tmp_path: Path, changed_in: str
) -> None:
    model = tiny.save(tmp_path / "model")

    def swap(step: str, piece: int) -> None:
        if (step, piece) == (changed_in, 1):
            tiny.save(model, seed=9)

    made = runner(
        tmp_path / "r",
        FakeSteps(tmp_path / "log", before_piece=swap),
        dump={"model": str(model), "layers": [2]},
    )
    made = with_step(made, "dump", external=lambda outside: outside.model_digests)
    made.prepare()
    with pytest.raises(ModelError, match="its weights changed on disk while it was in use"):
        made.run()
    kinds = [artifact.kind for artifact in ArtifactRoot(tmp_path / "r").artifacts()]
    assert kinds == ["conversations", "questions"]


def test_files_from_outside_are_what_the_key_says_they_are(tmp_path: Path) -> None:
    data = tmp_path / "own.jsonl"
    data.write_text("{}")
    edits = {("questions", 1): "[1]"}

    def edit(step: str, piece: int) -> None:
        if text := edits.get((step, piece)):
            data.write_text(text)

    made = runner(
        tmp_path / "r",
        FakeSteps(tmp_path / "log", before_piece=edit),
        data={"path": str(data), "format": "conversations"},
    )
    made = with_step(made, "questions", external=lambda outside: outside.own_digests)
    made.prepare()
    made.step("conversations")
    data.write_text("[]")
    with pytest.raises(DataError, match=r"questions: an input changed on disk .*own\.jsonl"):
        made.run()
    assert [artifact.kind for artifact in made.root.artifacts()] == ["conversations"]
    del edits["questions", 1]
    made.run()
    (questions,) = made.root.artifacts("questions")
    assert questions.identity["external"] == {"own.jsonl": sha256_file(data)}


def test_a_file_that_counts_by_what_it_says_is_compared_after_the_step(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("one")

    def edit(step: str, piece: int) -> None:
        if step == "evaluate":
            prompts.write_text("two")

    made = runner(tmp_path / "r", FakeSteps(tmp_path / "log", before_piece=edit))
    made = with_step(made, "evaluate", config=lambda own: {"prompts": prompts.read_text()})
    with pytest.raises(DataError, match=r"evaluate: an input changed on disk .*config\.prompts"):
        made.run()
    assert made.root.artifacts("evaluate") == []
    assert made.root.partials() == []


def test_nothing_resumes_from_what_was_made_of_other_files(tmp_path: Path) -> None:
    data = tmp_path / "own.jsonl"
    data.write_text("{}")
    edits = {("questions", 1): "[]"}

    def edit(step: str, piece: int) -> None:
        if text := edits.pop((step, piece), None):
            data.write_text(text)

    steps = FakeSteps(tmp_path / "log", before_piece=edit)
    made = runner(tmp_path / "r", steps, data={"path": str(data), "format": "conversations"})
    changes = {"external": lambda outside: outside.own_digests}
    with pytest.raises(DataError, match="changed on disk"):
        with_step(made, "questions", **changes).run()
    assert made.root.partials() == []
    data.write_text("{}")  # put back: the pieces of the attempt before are not taken for its own
    with_step(made, "questions", **changes).run()
    assert steps.written().count("questions 0") == 2


@pytest.mark.parametrize("swapped", ["weights", "data", "artifact"])
def test_a_file_that_is_swapped_and_put_back_under_a_step_makes_no_artifact(
    swapped: str, tmp_path: Path
) -> None:
    root, data = tmp_path / "r", tmp_path / "own.jsonl"
    data.write_text("{}")
    model = tiny.save(tmp_path / "model")
    other = tiny.save(tmp_path / "other", seed=9)
    files: dict[str, tuple[str, Callable[[], Path]]] = {
        "weights": ("dump", lambda: model / "model.safetensors"),
        "data": ("questions", lambda: data),
        "artifact": ("train", lambda: next((root / "questions").glob("*/data/piece-1"))),
    }
    step, find = files[swapped]
    seen: list[bytes] = []

    def swap(running: str, piece: int) -> None:
        if running != step or seen or piece != 1:
            return
        file, aside = find(), tmp_path / "aside"
        file.rename(aside)
        shutil.copy2(other / "model.safetensors", file)
        seen.append(file.read_bytes())
        aside.replace(file)

    made = runner(
        root,
        FakeSteps(tmp_path / "log", before_piece=swap),
        data={"path": str(data), "format": "conversations"},
        dump={"model": str(model), "layers": [2]},
    )
    external: dict[str, Callable[[ExternalInputs], dict[str, Any]]] = {
        "questions": lambda outside: outside.own_digests,
        "dump": lambda outside: outside.model_digests,
    }
    table = [replace(one, external=external.get(one.name, one.external)) for one in made.steps]
    with pytest.raises(DataError, match=rf"{step}: an input .* was replaced and put back") as said:
        Runner(made.experiment, made.root, steps=table).run()
    assert find().name in str(said.value)
    assert seen
    assert (made.root.artifacts(step), made.root.partials()) == ([], [])
    Runner(made.experiment, made.root, steps=table).run()


def test_new_rights_and_links_of_an_input_are_no_change(tmp_path: Path) -> None:
    root = tmp_path / "r"

    def touch(running: str, piece: int) -> None:
        if (running, piece) == ("train", 1):
            (questions,) = (root / "questions").glob("*/data/piece-1")
            questions.chmod(0o600)
            (tmp_path / "link").hardlink_to(questions)
            (questions.parent / ".DS_Store").touch()

    result = runner(root, FakeSteps(tmp_path / "log", before_piece=touch)).run()
    assert not any(step.cached for step in result.steps)


def test_an_input_that_is_swapped_under_a_step_makes_no_artifact(tmp_path: Path) -> None:
    root = tmp_path / "r"
    swaps = [("train", 1)]

    def swap(step: str, piece: int) -> None:
        if (step, piece) in swaps:
            swaps.clear()
            (questions,) = (root / "questions").glob("*/data/piece-1")
            swap_bytes(questions, b"questions 1", b"1 questions")

    steps = FakeSteps(tmp_path / "log", before_piece=swap)
    result = runner(root, steps).run()
    assert steps.written().count("train 0") == 2
    assert not any(step.artifact.damaged_files() for step in result.steps)


def test_what_verify_finds_is_recomputed_by_a_run_that_reads_nothing(
    tmp_path: Path, steps: FakeSteps
) -> None:
    first = runner(tmp_path / "r", steps).run()
    dump = path_of(first, "dump")
    swap_bytes(dump / "data" / "piece-0", b"dump", b"dumq")
    assert made(runner(tmp_path / "r", steps).run()) == []
    time.sleep(0.05)  # a file system's clock
    assert first.steps[2].artifact.damaged_files() == ["piece-0"]
    assert made(runner(tmp_path / "r", steps).run()) == ["dump"]


def test_a_hit_whose_code_has_changed_is_told(
    tmp_path: Path,
    steps: FakeSteps,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    first = runner(tmp_path / "r", steps).run()
    assert "has changed" not in capsys.readouterr().err
    monkeypatch.setattr("pipelines.running.remarks.source_digest", lambda entry: "0" * 64)
    assert made(runner(tmp_path / "r", steps).run()) == []
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("The code of 6 steps has changed since their artifacts were made")
    assert first.steps[2].artifact.short in said


def test_dropped_rows_are_told_after_the_step(
    tmp_path: Path, steps: FakeSteps, capsys: pytest.CaptureFixture[str]
) -> None:
    steps.counts["dump"] = {**steps.counts["dump"], "sequences": 20, "dropped": {"template": 40}}
    runner(tmp_path / "r", steps, until="dump").run()
    assert capsys.readouterr().err.splitlines()[-1] == (
        "dump           40 of 60 rows dropped: template 40"
    )


def test_damage_that_comes_back_is_an_error(tmp_path: Path) -> None:
    root = tmp_path / "r"

    def harm(step: str, piece: int) -> None:
        if step == "evaluate":
            damaged = next((root / "dump").glob("*/data/piece-0"))
            raise DamagedError(f"{damaged}: bad", damaged)

    steps = FakeSteps(tmp_path / "log", before_piece=harm)
    with pytest.raises(DamagedError):
        runner(root, steps).run()
    # made once, found good and kept when it was mended, and not mended again
    assert [line for line in steps.written() if line.startswith("dump")] == ["dump 0", "dump 1"]


def test_damage_outside_the_root_is_an_error(tmp_path: Path) -> None:
    def harm(step: str, piece: int) -> None:
        raise DamagedError("elsewhere", tmp_path / "elsewhere")

    with pytest.raises(DamagedError, match="elsewhere"):
        runner(tmp_path / "r", FakeSteps(tmp_path / "log", before_piece=harm)).run()


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_one_line_and_keeps_finished_work(tmp_path: Path, error: Exception) -> None:
    def fill(step: str, piece: int) -> None:
        if step == "train" and piece == 1:
            raise error

    with pytest.raises(StorageError, match=r"the disk is full\. Finished work is kept"):
        runner(tmp_path / "r", FakeSteps(tmp_path / "log", before_piece=fill)).run()
    steps = FakeSteps(tmp_path / "log")
    steps.written()
    assert made(runner(tmp_path / "r", steps).run()) == ["train", "evaluate"]
    assert steps.written()[0] == "train 1"


def test_a_failed_step_leaves_no_artifact(tmp_path: Path) -> None:
    def fail(step: str, piece: int) -> None:
        if step == "questions":
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        runner(tmp_path / "r", FakeSteps(tmp_path / "log", before_piece=fail)).run()
    assert [a.kind for a in ArtifactRoot(tmp_path / "r").artifacts()] == ["conversations"]


def test_the_record_says_how_it_was_made(tmp_path: Path, steps: FakeSteps) -> None:
    record = runner(tmp_path / "r", steps).run().steps[3].artifact.record
    assert record["runtime"]["device"] == "auto"
    assert record["counts"]["loss"] == 2.5
    assert set(record["inputs"]) == {"conversations", "questions", "dump"}
    assert record["packages"]["pydantic" if "pydantic" in record["packages"] else "numpy"]
    assert len(record["source"]) == 64
    assert {"git", "seconds", "created", "tokens", "cost", "machine"} <= record.keys()


def test_a_whole_run_gets_a_name_and_a_number(tmp_path: Path, steps: FakeSteps) -> None:
    first = runner(tmp_path / "r", steps).run()
    again = runner(tmp_path / "r", steps).run()
    changed = runner(tmp_path / "r", steps, evaluate={"answers": 1}).run()
    assert [str(result.name) for result in (first, again, changed)] == [
        "fake:1",
        "fake:1",
        "fake:2",
    ]
    refs = Refs(ArtifactRoot(tmp_path / "r"))
    assert refs.resolve("fake", "evaluate") == changed.steps[4].artifact
    assert refs.resolve("fake:1", "evaluate") == first.steps[4].artifact


def test_a_runner_of_the_real_table_knows_its_steps(tmp_path: Path) -> None:
    real = Runner(experiment(), ArtifactRoot(tmp_path))
    assert [step.name for step in real.steps] == [*STEPS, "report"]
