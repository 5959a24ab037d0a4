"""The step `judge`: an LLM judges the answers that an evaluation wrote."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evaluators.config import RUBRIC, EvaluateConfig, JudgeConfig
from generators.llm.endpoint.config import EMBEDDED
from pipelines.artifacts.identity import plain
from pipelines.artifacts.records import StepResult
from pipelines.experiment.config import Experiment
from pipelines.steps.generate import REQUESTS
from pipelines.steps.step import ExternalInputs, Step, StepCall

if TYPE_CHECKING:
    from pathlib import Path

    from generators.llm.prompt_files import PromptFiles

DECIDING = ("seed", "bootstrap", "min_controls")
"""Settings of the evaluation that decide the verdicts' numbers."""


def _settings(experiment: Experiment) -> JudgeConfig:
    return experiment.evaluate.judge or JudgeConfig()


def _texts(experiment: Experiment) -> PromptFiles:
    if experiment.generate is None:
        from generators.llm.prompt_files import PromptFiles

        return PromptFiles()
    from generators.making.generation import texts_of

    return texts_of(experiment.generate)


def _weights(experiment: Experiment) -> tuple[Path | None, str | None]:
    """Return file and digest of the embedded judge's weights; None where another model judges."""
    from activation_store.target.embedded_model import gguf_path
    from activation_store.target.gguf import served_identity

    if _settings(experiment).endpoint.model != EMBEDDED:
        return None, None
    return gguf_path(), served_identity(gguf_path())


def _judge(call: StepCall) -> StepResult:
    from activation_store.target.gguf import served
    from evaluators.answers.judge import JudgeSession, judge_answers
    from generators.llm.endpoint.resolve import open_endpoint

    runtime = call.experiment.runtime
    gguf, weights = _weights(call.experiment)
    with open_endpoint(
        _settings(call.experiment).endpoint,
        gguf=None if gguf is None else served(gguf),
        weights=weights,
        threads=runtime.threads,
    ) as endpoint:
        session = JudgeSession(
            endpoint=endpoint,
            log=call.root / REQUESTS,
            prompts=_texts(call.experiment),
            concurrency=runtime.concurrency,
            say=call.say,
        )
        counts = judge_answers(
            call.data("evaluate"),
            call.out,
            session,
            config=call.experiment.evaluate,
            progress=call.progress,
        ).to_json()
    return StepResult(counts=counts, tokens=sum(counts["tokens"].values()), cost=counts["cost_usd"])


def _config(experiment: Experiment) -> dict[str, Any]:
    whole = plain(experiment.evaluate, EvaluateConfig)
    return {"answers": _settings(experiment).answers, **{name: whole[name] for name in DECIDING}}


def _external(outside: ExternalInputs) -> dict[str, Any]:
    from generators.llm.endpoint.resolve import model_identity

    endpoint = _settings(outside.experiment).endpoint
    _, weights = _weights(outside.experiment)
    return {
        "judge": model_identity(endpoint, weights),
        "structured": endpoint.structured,
        "rubric": _texts(outside.experiment).prompt(RUBRIC).digest,
    }


JUDGE = Step(
    name="judge",
    version=3,
    entry="evaluators.answers.judge",
    run=_judge,
    config=_config,
    inputs={"evaluate": "evaluate"},
    external=_external,
    locations=lambda experiment: {"base_url": _settings(experiment).endpoint.base_url},
)
