"""The steps `judge` and `judge_tasks`: an LLM judges answers that were written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from core.errors import ConfigError
from evaluators.config import RUBRIC, EvaluateConfig, JudgeConfig
from evaluators.tasks.config import TasksConfig
from generators.llm.endpoint.config import EMBEDDED
from pipelines.artifacts.identity import plain
from pipelines.artifacts.records import StepResult
from pipelines.experiment.config import Experiment
from pipelines.steps.generate import REQUESTS
from pipelines.steps.step import ExternalInputs, Step, StepCall

if TYPE_CHECKING:
    from pathlib import Path

    from evaluators.answers.judge import JudgeCosts, JudgeSession
    from evaluators.measure.metrics import Metrics
    from generators.llm.prompt_files import PromptFiles

Settings = Callable[[Experiment], JudgeConfig]


def _of_evaluation(experiment: Experiment) -> JudgeConfig:
    return experiment.evaluate.judge or JudgeConfig()


def _of_tasks(experiment: Experiment) -> JudgeConfig:
    return _tasks(experiment).judge or JudgeConfig()


def _tasks(experiment: Experiment) -> TasksConfig:
    if experiment.tasks is None:
        raise ConfigError(f"{experiment.experiment}: has no section tasks.")
    return experiment.tasks


def _texts(experiment: Experiment) -> PromptFiles:
    if experiment.generate is None:
        from generators.llm.prompt_files import PromptFiles

        return PromptFiles()
    from generators.making.generation import texts_of

    return texts_of(experiment.generate)


def _weights(settings: JudgeConfig) -> tuple[Path | None, str | None]:
    """Return file and digest of the embedded judge's weights; None where another model judges."""
    from activation_store.target.embedded_model import gguf_path
    from activation_store.target.gguf import served_identity

    if settings.endpoint.model != EMBEDDED:
        return None, None
    return gguf_path(), served_identity(gguf_path())


@contextmanager
def _open_session(call: StepCall, settings: JudgeConfig) -> Iterator[JudgeSession]:
    from activation_store.target.gguf import served
    from evaluators.answers.judge import JudgeSession
    from generators.llm.endpoint.resolve import open_endpoint

    runtime = call.experiment.runtime
    gguf, weights = _weights(settings)
    with open_endpoint(
        settings.endpoint,
        gguf=None if gguf is None else served(gguf),
        weights=weights,
        threads=runtime.threads,
    ) as endpoint:
        yield JudgeSession(
            endpoint=endpoint,
            log=call.root / REQUESTS,
            prompts=_texts(call.experiment),
            concurrency=runtime.concurrency,
            say=call.say,
        )


def _result(metrics: Metrics, costs: JudgeCosts) -> StepResult:
    spent = costs.to_json()
    return StepResult(
        counts={**metrics.to_json(), **spent},
        tokens=sum(spent["tokens"].values()),
        cost=spent["cost_usd"],
    )


def _judge(call: StepCall) -> StepResult:
    from evaluators.answers.judge import judge_answers

    with _open_session(call, _of_evaluation(call.experiment)) as session:
        found = judge_answers(
            call.data("evaluate"),
            call.out,
            session,
            config=call.experiment.evaluate,
            progress=call.progress,
        )
    return _result(*found)


def _judge_tasks(call: StepCall) -> StepResult:
    from evaluators.tasks.judged import judge_task_answers

    with _open_session(call, _of_tasks(call.experiment)) as session:
        found = judge_task_answers(
            call.data("tasks"),
            call.out,
            session,
            config=_tasks(call.experiment),
            progress=call.progress,
        )
    return _result(*found)


def _config(experiment: Experiment) -> dict[str, Any]:
    whole = plain(experiment.evaluate, EvaluateConfig)
    deciding = ("seed", "bootstrap", "min_controls")
    return {
        "answers": _of_evaluation(experiment).answers,
        **{name: whole[name] for name in deciding},
    }


def _tasks_config(experiment: Experiment) -> dict[str, Any]:
    whole = plain(_tasks(experiment))
    deciding = ("seed", "bootstrap", "min_intervals")
    return {"answers": _of_tasks(experiment).answers, **{name: whole[name] for name in deciding}}


def _external(settings: Settings, outside: ExternalInputs) -> dict[str, Any]:
    from generators.llm.endpoint.resolve import model_identity

    endpoint = settings(outside.experiment).endpoint
    _, weights = _weights(settings(outside.experiment))
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
    external=partial(_external, _of_evaluation),
    locations=lambda experiment: {"base_url": _of_evaluation(experiment).endpoint.base_url},
)

JUDGE_TASKS = Step(
    name="judge_tasks",
    version=1,
    entry="evaluators.tasks.judged",
    run=_judge_tasks,
    config=_tasks_config,
    inputs={"tasks": "tasks"},
    external=partial(_external, _of_tasks),
    locations=lambda experiment: {"base_url": _of_tasks(experiment).endpoint.base_url},
)
