"""The optional step `robustness`: where it stands, and what the report shows of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from report_example import report_text

from evaluators.robustness.config import RobustnessConfig
from pipelines.experiment.config import Experiment
from pipelines.steps.order import steps_for

DOCS = Path(__file__).parents[3] / "docs" / "robustness.md"


def experiment(**more: Any) -> Experiment:
    return Experiment.model_validate({"experiment": "toy", "data": {"path": "x"}, **more})


def test_the_step_is_there_where_it_is_asked_for() -> None:
    assert "robustness" not in [step.name for step in steps_for(experiment())]
    own = experiment(robustness={"strengths": [1.0]})
    steps = {step.name: step for step in steps_for(own)}
    assert list(steps)[-3:] == ["evaluate", "robustness", "report"]
    step = steps["robustness"]
    assert set(step.inputs) == {"conversations", "questions", "dump", "train"}
    assert step.config(own)["strengths"] == [1.0]
    assert steps["report"].inputs["robustness"] == "robustness"
    live = experiment(robustness={}, train={"activations": "live"})
    step = {step.name: step for step in steps_for(live)}["robustness"]
    assert "dump" not in step.inputs
    assert "layers" in step.config(live)["capture"]


def test_the_section_of_the_docs_is_valid() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", DOCS.read_text(), flags=re.DOTALL)
    RobustnessConfig.model_validate(yaml.safe_load(block)["robustness"])


def leaf(estimate: float) -> dict[str, Any]:
    return {"estimate": estimate, "low": estimate - 0.1, "high": estimate + 0.1, "n": 9}


def test_the_report_shows_drops(tmp_path: Path) -> None:
    each = {"plain": leaf(1.25), "altered": leaf(1.75), "drop": leaf(0.5)}
    own = {"right": each, "none_minus_right": each, "excluded": {}}
    found = {
        "views": {
            "test": {
                "control": {
                    "decoy": {**own, "own_answer": each, "excluded": {"why": 2}},
                    "shift:0.5": {**own, "moved": 0.125, "out_of_distribution": 0.5},
                }
            }
        },
        "held_out": {
            "control": {
                name: {"test": leaf(1), "test_ood": leaf(3), "drop": leaf(2)}
                for name in ("right", "none_minus_right")
            }
        },
        "fine_tune": {"losses": [4.0, 3.5]},
    }
    text = report_text(tmp_path, experiment(), robustness=found)
    assert "another control quoted 9 1.25 [1.15, 1.35] 1.75 [1.65, 1.85] 0.50 [0.40, 0.60]" in text
    assert re.search(r"another control quoted .* – – 2 ", text)
    assert re.search(r"target fine-tuned, strength 0.5 .* 12 % 50 % \d", text)
    assert "language-model loss 4.00 to 3.50 nats" in text
    assert 'href="#robustness"' in (tmp_path / "report.html").read_text()
