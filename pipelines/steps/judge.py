"""The steps `judge` and `judge_tasks`: an LLM judges answers that were written."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any

from core.errors import ConfigError
from evaluators.config import RUBRIC, EvaluateConfig, JudgeConfig
from evaluators.tasks.config import TasksConfig
from pipelines.artifacts.cache_key import plain
from pipelines.artifacts.records import StepResult
from pipelines.experiment.config import Experiment
from pipelines.steps.shared.llm_session import open_session, weights_identity
from pipelines.steps.shared.step import ExternalInputs, Step, StepCall

if TYPE_CHECKING:
    from evaluators.answers.judge import JudgeCosts
    from evaluators.measure.metrics import Metrics
    from generators.llm.endpoint.config import EndpointConfig
    from generators.llm.prompt_files import PromptFiles
    from generators.llm.session import LLMSession

Settings = Callable[[Experiment], JudgeConfig]


def _of_evaluation(experiment: Experiment) -> JudgeConfig:
    return experiment.evaluate.judge or JudgeConfig()


def _of_tasks(experiment: Experiment) -> JudgeConfig:
    return _tasks(experiment).judge or JudgeConfig()


def _tasks(experiment: Experiment) -> TasksConfig:
    if experiment.tasks is None:
        raise ConfigError(f"{experiment.experiment}: has no section tasks.")
    return experiment.tasks


def judge_texts(experiment: Experiment) -> PromptFiles:
    """Open the prompts that the experiment names, or the packaged ones."""
    if experiment.generate is None:
        from generators.llm.prompt_files import PromptFiles

        return PromptFiles()
    from generators.making.externals import texts_of

    return texts_of(experiment.generate)


def _session(call: StepCall, endpoint: EndpointConfig) -> AbstractContextManager[LLMSession]:
    return open_session(call, endpoint, judge_texts(call.experiment))


def _result(metrics: Metrics, costs: JudgeCosts) -> StepResult:
    spent = costs.to_json()
    return StepResult(
        counts={**metrics.to_json(), **spent},
        tokens=sum(spent["tokens"].values()),
        cost=spent["cost_usd"],
    )


def _judge(call: StepCall) -> StepResult:
    from evaluators.answers.judge import judge_answers

    with _session(call, _of_evaluation(call.experiment).endpoint) as session:
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

    with _session(call, _of_tasks(call.experiment).endpoint) as session:
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
    return {
        "judge": model_identity(endpoint, weights_identity(endpoint)),
        "structured": endpoint.structured,
        "rubric": judge_texts(outside.experiment).prompt(RUBRIC).digest,
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
