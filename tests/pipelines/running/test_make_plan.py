"""A plan says hit or miss for each step, and why."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_steps import FakeSteps, runner

from pipelines.running.plan import StepEstimate, StepPlan, plan_run


@pytest.fixture
def steps(tmp_path: Path) -> FakeSteps:
    return FakeSteps(tmp_path / "log", pieces=1)


def plans(tmp_path: Path, steps: FakeSteps, **changes: Any) -> dict[str, StepPlan]:
    return {plan.step: plan for plan in plan_run(runner(tmp_path / "r", steps, **changes))}


def test_in_an_empty_root_all_is_missing_and_nothing_is_made(
    tmp_path: Path, steps: FakeSteps
) -> None:
    found = plans(tmp_path, steps)
    assert found["conversations"].why == "no conversations artifact in this root yet."
    assert found["dump"].why == "waits for conversations."
    assert {plan.status for plan in found.values()} == {"miss"}
    assert not (tmp_path / "r").exists()


def test_after_a_run_all_is_a_hit(tmp_path: Path, steps: FakeSteps) -> None:
    runner(tmp_path / "r", steps).run()
    assert {plan.status for plan in plans(tmp_path, steps).values()} == {"hit"}


def test_a_miss_names_the_changed_field_against_the_nearest(
    tmp_path: Path, steps: FakeSteps
) -> None:
    first = runner(tmp_path / "r", steps).run()
    found = plans(tmp_path, steps, dump={"layers": [3]})["dump"]
    assert found.status == "miss"
    assert found.nearest == first.steps[2].artifact.short
    assert [str(change) for change in found.changes] == ["config.layers: [0.5] → [3]"]


def test_what_waits_shows_its_own_changes_alone(tmp_path: Path, steps: FakeSteps) -> None:
    runner(tmp_path / "r", steps).run()
    found = plans(tmp_path, steps, dump={"layers": [3]}, train={"lora": {"rank": 2}})["train"]
    assert found.why == "waits for dump."
    assert found.key is None
    assert [str(change) for change in found.changes] == ["config.rank: 16 → 2"]


def test_damage_is_told(tmp_path: Path, steps: FakeSteps) -> None:
    first = runner(tmp_path / "r", steps).run()
    (first.steps[2].artifact.data / "piece-0").unlink()
    found = plans(tmp_path, steps)["dump"]
    assert found.status == "damaged"
    assert found.why.endswith("piece-0: the file is missing.")


def test_what_was_begun_is_told(tmp_path: Path) -> None:
    def fail(step: str, piece: int) -> None:
        raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        runner(tmp_path / "r", FakeSteps(tmp_path / "log", before_piece=fail)).run()
    found = plans(tmp_path, FakeSteps(tmp_path / "log"))["conversations"]
    assert found.why == "unfinished: resumes where it stopped."


def test_seconds_and_bytes_are_those_of_this_experiments_nearest(
    tmp_path: Path, steps: FakeSteps
) -> None:
    like = runner(tmp_path / "r", steps).run().steps[2].artifact
    estimate = plans(tmp_path, steps, dump={"layers": [3]})["dump"].estimate
    assert estimate == StepEstimate(
        requests=0,
        tokens=0,
        money=0.0,
        seconds=like.record["seconds"],
        bytes=like.size,
        like=like.short,
    )


def test_another_experiment_tells_nothing_about_this_one(tmp_path: Path, steps: FakeSteps) -> None:
    first = runner(tmp_path / "r", steps, experiment="other").run()
    found = plans(tmp_path, steps, dump={"layers": [3]})["dump"]
    assert found.nearest == first.steps[2].artifact.short
    assert found.estimate == StepEstimate()
    assert found.to_json()["estimate"]["seconds"] is None


def test_a_step_may_tell_its_size_once_its_inputs_are_there(
    tmp_path: Path, steps: FakeSteps
) -> None:
    def size(experiment: Any, outside: Any, inputs: Any, sampled: bool) -> dict[str, int]:
        assert inputs["conversations"].is_dir()
        return {"raw_bytes": 10 + sampled}

    made = runner(tmp_path / "r", steps)
    made.steps = tuple(replace(s, size=size) if s.name == "dump" else s for s in made.steps)
    assert plan_run(made)[2].estimate.raw_bytes is None
    runner(tmp_path / "r", steps, until="conversations").run()
    for sampled in (False, True):
        dump = next(s for s in plan_run(made, sampled=sampled) if s.step == "dump")
        assert dump.estimate.raw_bytes == 10 + sampled


def test_other_source_files_are_told_and_stay_a_hit(
    tmp_path: Path, steps: FakeSteps, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner(tmp_path / "r", steps).run()
    monkeypatch.setattr("pipelines.running.plan.source_digest", lambda entry: "0" * 64)
    found = plans(tmp_path, steps)["dump"]
    assert found.status == "hit"
    assert found.why == "complete; its code has changed since, but not its step version."
