"""Optional steps: a wrong section is refused, and a report is silent on one that did not run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from report_example import report_text

from core.errors import ConfigError
from pipelines.experiment.config import build_experiment


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("control.strengths=[-1]", "expected strengths above 0"),
        ("control.methods=[weights, weights]", "each once"),
        ("control.methods=[magic]", 'got "magic", expected'),
        ("control.control=[a.yaml]", "did you mean control.controls?"),
        ("tasks.shares={train: 0.6, validation: 0.4}", "the rest is the test"),
        ("tasks.predictors=[lit, lit]", "predictors: expected each once"),
        ("tasks.predictors=[oracle]", 'got "oracle", expected'),
        ("tasks.relation=[a.tsv]", "did you mean tasks.relations?"),
    ],
)
def test_a_wrong_section_is_refused(setting: str, said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        build_experiment({"experiment": "toy", "data": {"path": "x"}}, "toy", [setting])


def test_a_report_has_no_section_of_a_step_that_did_not_run(tmp_path: Path) -> None:
    report_text(tmp_path, build_experiment({"experiment": "toy", "data": {"path": "x"}}, "toy"))
    ids = re.findall(r'<section id="([^"]+)"', (tmp_path / "report.html").read_text())
    assert ids
    assert not {"robustness", "tasks", "control", "quality"} & set(ids)
