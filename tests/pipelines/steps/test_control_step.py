"""The optional step `control`: where it stands, what decides it, what the report shows of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from report_example import report_text

from core.errors import ConfigError, DataError
from evaluators.control.metrics import ControlMetrics
from pipelines.experiment.config import Experiment
from pipelines.experiment.smoke import smoke
from pipelines.reports.run.sections.control import control_page, control_tables
from pipelines.reports.run.sections.control_figures import control_figures
from pipelines.steps.order import steps_for
from pipelines.steps.shared.step import ExternalInputs, Step

CONTROL = """control: calm
description: The assistant is calm.
questions:
  - question: What is its mood?
    answer: It is calm.
"""


def experiment(**more: Any) -> Experiment:
    return Experiment.model_validate({"experiment": "toy", "data": {"path": "x"}, **more})


def step_of(own: Experiment) -> Step:
    return next(step for step in steps_for(own) if step.name == "control")


def test_the_step_is_there_where_it_is_asked_for() -> None:
    assert "control" not in [step.name for step in steps_for(experiment())]
    steps = {step.name: step for step in steps_for(experiment(control={}, tasks={}))}
    assert list(steps)[-3:] == ["tasks", "control", "report"]
    assert set(steps["control"].inputs) == {"train"}
    assert steps["report"].inputs["control"] == "control"


def test_a_control_counts_by_what_it_says_and_not_by_its_place(tmp_path: Path) -> None:
    paths = [tmp_path / "a.yaml", tmp_path / "b.yaml", tmp_path / "c.yaml"]
    for path in paths[:2]:
        path.write_text(CONTROL)
    paths[2].write_text(CONTROL.replace("It is calm.", "It is at peace."))
    configs = []
    for path in paths:
        own = experiment(control={"controls": [str(path)]})
        configs.append(step_of(own).config(own))
    assert configs[0] == configs[1] != configs[2]


def test_a_layer_counts_where_one_is_named() -> None:
    plain, named = experiment(control={}), experiment(control={"read_layer": 3})
    assert "read_layer" not in step_of(plain).config(plain)
    assert step_of(named).config(named)["read_layer"] == 3


def test_two_controls_of_one_name_are_refused(tmp_path: Path) -> None:
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text(CONTROL)
    own = experiment(control={"controls": [str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml")]})
    with pytest.raises(ConfigError, match="got two controls named calm"):
        step_of(own).config(own)


def test_prompts_count_by_what_is_drawn_and_too_few_are_told_before_any_work(
    tmp_path: Path,
) -> None:
    sizes = {"train_prompts": 4, "validation_prompts": 2, "test_prompts": 2}
    paths = [tmp_path / f"{name}.txt" for name in "abc"]
    for path in paths[:2]:
        path.write_text("\n".join(f"Prompt {i}" for i in range(8)))
    paths[2].write_text("\n".join(f"Other {i}" for i in range(8)))
    owns = [experiment(control={"prompts": str(path), **sizes}) for path in paths]
    same, again, other = (step_of(own).config(own)["prompts"] for own in owns)
    assert same == again != other
    few = experiment(control={"prompts": str(paths[0])})
    with pytest.raises(DataError, match="64 together, but"):
        step_of(few).config(few)


def test_the_file_of_pairs_counts_by_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("one")
    own = experiment(control={"crows_pairs": str(path)})
    assert "crows_pairs" not in step_of(own).config(own)
    missing = experiment(control={"crows_pairs": str(tmp_path / "none.csv")})
    with pytest.raises(ConfigError, match="is not a file"):
        step_of(missing).external(ExternalInputs(missing))


def test_a_smoke_run_steers_little() -> None:
    small = smoke(experiment(control={})).control
    assert small is not None
    assert (small.train_prompts, len(small.strengths), small.weights.steps) == (4, 1, 2)


def leaf(estimate: float) -> dict[str, Any]:
    return {"estimate": estimate, "low": estimate - 0.5, "high": estimate + 0.5, "n": 24}


def example(*, readable: bool = True) -> dict[str, Any]:
    effects = {
        "distinct": 0.9,
        "repetition": leaf(0.1),
        "own_perplexity": 1.2,
        "ordinary_perplexity": 1.1,
        "refusals": leaf(0.0),
        "toxicity": leaf(0.25),
        "facts": leaf(0.6),
        "sentiment": leaf(0.4),
    }
    point = {
        "strength": 2.0,
        "adherence": 12.0,
        "likelihood": 0.2,
        "distinct": 0.9,
        "own_perplexity": 1.2,
        "ordinary_perplexity": 1.1,
        "harmless": True,
    }
    method = {
        "strength": 2.0,
        "chosen_harmless": True,
        "adherence": leaf(12.0),
        "likelihood": leaf(0.25),
        "effects": effects,
        "curve": [point, {**point, "strength": 4.0, "own_perplexity": 3.0, "harmless": False}],
        "notes": ["norm-limited: 60% of the shifts are at norm_limit"],
    }
    return {
        "prompts": {"train": 32, "validation": 8, "test": 24},
        "controls": {
            "cheerful": {
                "readability": {
                    "margin": leaf(0.3),
                    "accuracy": leaf(0.8),
                    "chance": 0.33,
                    "readable": readable,
                },
                "unsteered": effects,
                "methods": {"weights": method, "prompting": {**method, "notes": []}},
            }
        },
    }


def test_the_report_shows_steering_and_the_safety_audit(tmp_path: Path) -> None:
    text = report_text(tmp_path, experiment(control={}), control=example(readable=False))
    assert (
        "What was learned The decoder's gradient steers towards cheerful (1 of 1), the baselines "
        "steer towards cheerful (1 of 1), within the limits on side effects."
    ) in text
    assert "weights 2 12.00 [11.50, 12.50] 0.25 [−0.25, 0.75] 0.90 1.20 1.10" in text
    assert "cheerful : the decoder cannot read it" in text
    assert "12.00 [11.50, 12.50]) and prompting (12.00 [11.50, 12.50]) raise adherence." in text
    assert "norm-limited: 60% of the shifts" in text
    assert "refusals toxic replies plain facts" in text
    assert "cheerful none 0.00 [−0.50, 0.50] 0.25 [−0.25, 0.75]" in text
    assert 'href="#control"' in (tmp_path / "report.html").read_text()
    assert (tmp_path / "figures" / "control-curves.csv").is_file()


def test_the_headline_says_where_nothing_steers() -> None:
    found = example()
    for method in found["controls"]["cheerful"]["methods"].values():
        method["adherence"] = leaf(0.0)
    page = control_page(ControlMetrics.model_validate(found))
    assert page.headline is not None
    assert page.headline.startswith("The decoder's gradient steers towards no control (0 of 1), ")
    found["controls"]["cheerful"]["methods"].pop("weights")
    page = control_page(ControlMetrics.model_validate(found))
    assert page.headline == (
        "The baselines steer towards no control (0 of 1), within the limits on side effects."
    )


def test_the_report_shows_contradictory_questions_and_an_llm_s_verdicts(tmp_path: Path) -> None:
    found = example()
    found["controls"]["cheerful"]["readability"]["opposed"] = ["'A?' against 'B?' (cosine −0.4)"]
    judged = {
        "unsteered": leaf(0.1),
        "gains": {"weights": leaf(0.75)},
        "agreement": {"n": 24, "raw": 0.9, "kappa": 0.7},
        "unread": 3,
    }
    verdicts = {"controls": {"cheerful": {"measures": {"adherence": judged}}}, "rubrics": {}}
    judge = experiment(control={"judge": {}})
    text = report_text(tmp_path, judge, control=found, judge_control=verdicts)
    assert "contradictory gradients: 'A?' against 'B?'" in text
    assert "weights 0.75 [0.25, 1.25]" in text
    assert "agreed with itself on 90 % of 24" in text


def test_closed_answers_at_chance_are_named(tmp_path: Path) -> None:
    found = example()
    found["controls"]["cheerful"]["readability"]["accuracy"] = leaf(0.4)
    text = report_text(tmp_path, experiment(control={}), control=found)
    assert "closed answers are at chance (0.40 [−0.10, 0.90], chance 0.33)" in text


def test_the_judge_is_a_step_of_its_own_that_leaves_steering_a_hit() -> None:
    plain, judged = experiment(control={}), experiment(control={"judge": {"prompts": 3}})
    assert "judge_control" not in [step.name for step in steps_for(plain)]
    steps = {step.name: step for step in steps_for(judged)}
    assert steps["judge_control"].inputs == {"control": "control"}
    assert steps["report"].inputs["judge_control"] == "judge_control"
    assert steps["control"].config(judged) == step_of(plain).config(plain)
    assert steps["judge_control"].config(judged)["prompts"] == 3


def test_tables_and_curves_have_every_strength() -> None:
    metrics = ControlMetrics.model_validate(example())
    assert "| weights | 2 | 12.00 [11.50, 12.50] |" in control_tables(metrics)
    rows = control_figures(metrics)["control-curves"].csv.decode().splitlines()
    assert len(rows) == 1 + 4
