"""The optional step `quality`: where it stands, what it keys, and what the report shows of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from scripted_endpoint import ScriptedEndpoint

from latentqa.terminal.data_view import print_measured, print_rows, print_stats
from pipelines.artifacts.data_tables import load_tables
from pipelines.reports.run.inputs import ReportInputs
from pipelines.reports.run.report import write_report
from pipelines.running.request import RunRequest
from pipelines.running.results import RunResult
from pipelines.steps.order import steps_for
from pipelines.steps.shared.llm_session import REQUESTS


def request(
    folder: Path, quality: dict[str, Any] | None, base_url: str = "http://127.0.0.1:9/v1"
) -> RunRequest:
    path = folder / "own.yaml"
    kinds = {"profile": {"controls": 12, "views": ["control"]}}
    content: dict[str, Any] = {
        "experiment": "own",
        "generate": {"conversations": {"kinds": kinds}, "questions": {"per_control": 2}},
    }
    if quality is not None:
        endpoint = {"model": "scripted", "base_url": base_url}
        content["quality"] = {"endpoint": endpoint, "sample": 6, **quality}
    path.write_text(json.dumps(content))
    until = "questions" if quality is None else "quality"
    return RunRequest(config=str(path), root=str(folder / "root"), until=until)


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunResult]:
    """Run with the check, and again with no endpoint there."""
    folder = tmp_path_factory.mktemp("checked")
    quality = {"rules": {"longest": 400}, "drop": ["too_long"], "answerable": 0.05}
    with ScriptedEndpoint() as endpoint:
        asked = request(folder, quality, endpoint.base_url)
        first = asked.open().run()
        assert endpoint.work
    assert (folder / "root" / REQUESTS).exists()
    assert [run.cached for run in first.steps] == [False, False, False]
    again = request(folder, quality, "http://127.0.0.1:9/v1").open().run()
    assert [run.cached for run in again.steps] == [True, True, True]
    return folder, first


def test_other_thresholds_check_again_and_touch_nothing_else(
    checked: tuple[Path, RunResult],
) -> None:
    folder, _ = checked
    quality = {"answerability": False, "faithfulness": False}
    found = request(folder, quality).open().run()
    assert [run.cached for run in found.steps] == [True, True, False]


def test_training_and_evaluation_take_the_questions_that_are_left(tmp_path: Path) -> None:
    plain = request(tmp_path, None).open().experiment
    assert "quality" not in [step.name for step in steps_for(plain)]
    steps = {step.name: step for step in steps_for(request(tmp_path, {}).open().experiment)}
    assert steps["train"].inputs["questions"] == steps["evaluate"].inputs["questions"] == "quality"
    assert "quality" not in steps["dump"].inputs.values()


def test_the_metrics_count_what_is_left(checked: tuple[Path, RunResult]) -> None:
    _, result = checked
    data, quality = result.metrics["data"], result.metrics["quality"]
    long = quality["flags"]["too_long"]["rows"]
    assert 0 < long < 12
    assert data["dropped"] == {"too_long": 2 * long}
    assert data["questions"] == 24 - 2 * long
    assert quality["faithfulness"]["answers"]["own"]["n"] == 6


def test_the_commands_show_the_checked_rows_with_their_flags(
    checked: tuple[Path, RunResult], capsys: pytest.CaptureFixture[str]
) -> None:
    from generators.exchange.exporting import to_records
    from generators.quality.describe import describe_dataset

    folder, result = checked
    key = result.steps[-1].artifact.key[:12]
    tables = load_tables(folder / "root", f"quality/{key}")
    assert len(tables.questions) == result.metrics["data"]["questions"]
    assert len(tables.conversations) == 12
    assert {flag for row in tables.conversations for flag in row.flags} == {"too_long"}
    print_rows(to_records(tables.conversations, tables.questions), total=12)
    print_stats(describe_dataset(tables.conversations, tables.questions, tables.dropped))
    assert tables.quality is not None
    assert tables.quality.to_json() == result.metrics["quality"]
    print_measured(tables.quality)
    shown = capsys.readouterr().out
    assert "token F1 from the question alone" in " ".join(shown.split())
    assert "two passes agree on" in shown
    assert "flags: too_long" in shown
    assert "no row is flagged by a rule" in shown  # the default rules know no longest
    assert "questions per control: " in shown


def test_the_report_has_a_section_on_it(checked: tuple[Path, RunResult], tmp_path: Path) -> None:
    folder, result = checked
    quality = {"rules": {"longest": 400}, "drop": ["too_long"], "answerable": 0.05}
    experiment = request(folder, quality).open().experiment

    def page(names: set[str], out: Path) -> str:
        inputs = ReportInputs(
            experiment=experiment,
            command="",
            metrics={},
            steps=tuple(run.artifact for run in result.steps if run.step.name in names),
        )
        return write_report(inputs, out).read_text()

    whole = page({"conversations", "questions", "quality"}, tmp_path / "whole")
    for words in (
        "Quality of the data",
        "too long",
        "Answered from the question alone",
        "judged by scripted",
        "another’s gold",
        "two passes agree on",
    ):
        assert words in whole
    plain = page({"conversations", "questions"}, tmp_path / "plain")
    assert "No group, label or control is in two splits" in plain
    assert "Answered from the question alone" not in plain
    assert 'id="quality"' not in page(set(), tmp_path / "none")
