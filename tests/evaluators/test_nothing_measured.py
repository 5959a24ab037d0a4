"""Where no row has a partner: an evaluation without a number, and every reader of it."""

from __future__ import annotations

from pathlib import Path

import chain
import pytest
from report_example import write_step

from evaluators.config import EvaluateConfig
from evaluators.evaluation import TrainedDecoders, evaluate
from pipelines.experiment.config import Experiment
from pipelines.reports.run.claims import assess_reading
from pipelines.reports.run.data import read_report_data
from pipelines.reports.run.inputs import ReportInputs
from pipelines.reports.run.report import write_report
from pipelines.running.summary import reading_rows
from pipelines.steps.shared.metrics import metrics_of

NOTHING = {"estimate": None, "low": None, "high": None, "n": 0}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> ReportInputs:
    folder = tmp_path_factory.mktemp("nothing")
    made = chain.make(folder / "chain", [chain.row(0), chain.row(1, split="test")])
    for name in ("decoder", "work"):
        (folder / name).mkdir()
    step = write_step(folder, "evaluate")
    chain.decoder(made).save(folder / "decoder")
    found = evaluate(
        made.inputs(),
        TrainedDecoders(decoder=folder / "decoder"),
        step.data,
        folder / "work",
        config=EvaluateConfig(),
        runtime=chain.RUNTIME,
    )
    step = write_step(folder, "evaluate", found.to_json())
    return ReportInputs(
        experiment=Experiment.model_validate(
            {"experiment": "nothing", "data": {"path": "x"}, "evaluate": {"splits": ["test"]}}
        ),
        command="latentqa run nothing.yaml",
        metrics=metrics_of({"evaluate": step.record}),
        steps=(step,),
    )


def test_the_tree_has_every_key_with_an_empty_estimate(inputs: ReportInputs) -> None:
    found = inputs.metrics["reading"]["test"]["control"]
    assert found["answer_loss"] == dict.fromkeys(("right", "other", "mean", "none"), NOTHING)
    assert found["untrained"] == {"right": NOTHING, "other": NOTHING}
    for name in ("grounded_gain", "information_gain", "below_untrained"):
        assert found[name] == NOTHING
    assert found["excluded"] == {"no_other_control": 1}


def test_the_verdict_claims_nothing(inputs: ReportInputs) -> None:
    (reading,) = read_report_data(inputs).readings
    claim = assess_reading(reading)
    assert not claim.holds
    assert claim.sentence.startswith("No row could be measured: no row has another control")


def test_the_summary_shows_dashes(inputs: ReportInputs) -> None:
    (row,) = reading_rows(inputs.metrics["reading"])
    assert row["right"] == row["grounded gain"] == "–"
    assert row["controls"] == "0"


def test_the_report_is_written(inputs: ReportInputs, tmp_path: Path) -> None:
    page = write_report(inputs, tmp_path)
    assert "This run measured nothing: no row has another control" in page.read_text()
