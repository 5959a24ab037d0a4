"""The optional step `judge_control`: an LLM judges the replies of steered targets."""

from __future__ import annotations

from typing import Any

from core.errors import ConfigError
from evaluators.control.config import ControlJudgeConfig, ControlSection
from pipelines.artifacts.records import StepResult
from pipelines.experiment.config import Experiment
from pipelines.steps.control import CONTROL
from pipelines.steps.judge import judge_texts
from pipelines.steps.shared.llm_session import open_session, weights_identity
from pipelines.steps.shared.step import ExternalInputs, Step, StepCall

JUDGE_CONTROL = "judge_control"
_COUNTED = ("requests", "cached_requests", "failed_requests", "estimated_requests")


def judge_control_step() -> Step:
    """Return the step, which takes what the step `control` wrote."""
    return Step(
        name=JUDGE_CONTROL,
        version=1,
        entry="evaluators.control.llm_judge",
        run=_judge,
        config=_config,
        inputs={CONTROL: CONTROL},
        external=_external,
        locations=lambda experiment: {"base_url": _settings(experiment)[1].endpoint.base_url},
    )


def _settings(experiment: Experiment) -> tuple[ControlSection, ControlJudgeConfig]:
    if experiment.control is None or experiment.control.judge is None:
        raise ConfigError(f"{experiment.experiment}: has no section control.judge.")
    return experiment.control, experiment.control.judge


def _config(experiment: Experiment) -> dict[str, Any]:
    section, judge = _settings(experiment)
    return {
        "measures": list(judge.measures),
        "prompts": judge.prompts,
        "seed": section.seed,
        "bootstrap": section.bootstrap,
    }


def _external(outside: ExternalInputs) -> dict[str, Any]:
    from evaluators.control.llm_judge import RUBRICS
    from generators.llm.endpoint.resolve import model_identity

    _, judge = _settings(outside.experiment)
    texts = judge_texts(outside.experiment)
    return {
        "judge": model_identity(judge.endpoint, weights_identity(judge.endpoint)),
        "structured": judge.endpoint.structured,
        "rubrics": {name: texts.prompt(RUBRICS[name]).digest for name in judge.measures},
    }


def _judge(call: StepCall) -> StepResult:
    from evaluators.control.llm_judge import judge_replies

    section, judge = _settings(call.experiment)
    with open_session(call, judge.endpoint, judge_texts(call.experiment)) as session:
        found, costs = judge_replies(
            call.data(CONTROL), call.out, session, config=section, progress=call.progress
        )
    spent = [own.to_json() for own in costs]
    counts = {
        **found.model_dump(mode="json"),
        **{name: sum(own[name] for own in spent) for name in _COUNTED},
        "tokens": {
            kind: sum(own["tokens"][kind] for own in spent) for kind in ("prompt", "completion")
        },
    }
    prices = [own["cost_usd"] for own in spent]
    cost = None if None in prices else sum(prices)
    return StepResult(
        counts={**counts, "cost_usd": cost}, tokens=sum(counts["tokens"].values()), cost=cost
    )
