"""The last lines of a run."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_steps import FakeSteps, runner

from pipelines.running.summary import summary
from pipelines.steps.shared.metrics import dropped_rows


def test_a_whole_run_says_what_was_learned_where_and_what_next(tmp_path: Path) -> None:
    result = runner(tmp_path / "r", FakeSteps(tmp_path / "log")).run()
    text = summary(result, " --root r")
    row = next(line for line in text.splitlines() if line.startswith("test"))
    assert " ".join(row.replace("\u00a0", " ").split()) == (
        "test control 1.00 1.00 – – 1.00 [0.50, 1.50] 9"
    )
    assert "says nothing about what is hidden" in text
    assert f"Report:  {result.report}" in text
    assert "latentqa ask fake --root r --prompt" in text
    assert "latentqa data show fake --root r" in text
    assert "latentqa diff" not in text


def test_a_hidden_gain_is_told_with_what_it_means(tmp_path: Path) -> None:
    steps = FakeSteps(tmp_path / "log")
    view = steps.counts["evaluate"]["reading"]["test"]["control"]
    steps.counts["evaluate"] = {
        "reading": {"test": {"system": {**view, "hidden_gain": view["grounded_gain"]}}}
    }
    text = summary(runner(tmp_path / "r", steps).run())
    assert "reads what is hidden if the intervals" in text
    assert "says nothing" not in text


def test_a_second_version_can_be_compared(tmp_path: Path) -> None:
    steps = FakeSteps(tmp_path / "log")
    runner(tmp_path / "r", steps).run()
    result = runner(tmp_path / "r", steps, evaluate={"answers": 1}).run()
    assert "latentqa diff fake:1 fake:2" in summary(result)


def test_a_run_that_stopped_early_says_where(tmp_path: Path) -> None:
    result = runner(tmp_path / "r", FakeSteps(tmp_path / "log"), until="dump").run()
    lines = summary(result).splitlines()
    assert lines[-2] == f"Stopped after dump: {result.steps[-1].artifact.path}"
    assert lines[-1] == "Named fake:1; `latentqa untag fake:1` removes the name."


def test_dropped_rows_are_told_with_their_reasons(tmp_path: Path) -> None:
    result = runner(tmp_path / "r", FakeSteps(tmp_path / "log"), until="dump").run()
    assert "questions: 3 of 10 rows dropped: empty 2, orphan 1" in summary(result).splitlines()


def test_replies_that_were_dropped_are_a_share_of_the_replies() -> None:
    counts = {"examples": 45, "completions": 5, "dropped": {"thought": 15}}
    assert dropped_rows("complete", counts) == "15 of 20 rows dropped: thought 15"


def test_a_run_that_could_judge_nothing_says_so_instead_of_a_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = FakeSteps(tmp_path / "log")
    none = {"estimate": None, "low": None, "high": None, "n": 1}
    steps.counts["evaluate"] = {"reading": {"test": {"control": {"answer_loss": {"right": none}}}}}
    result = runner(tmp_path / "r", steps).run()
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("Nothing could be judged: 1 controls in the split test, expected at")
    assert "–" not in summary(result)
