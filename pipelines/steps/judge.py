"""The steps in which an LLM judges what was written: answers, task answers, steered replies."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from evaluators.config import RUBRIC, EvaluateConfig, JudgeConfig
from evaluators.control.config import ControlJudgeConfig, ControlSection
from pipelines.artifacts.cache_key import plain
from pipelines.artifacts.records import StepResult
from pipelines.experiment.config import Experiment
from pipelines.steps.shared.llm_session import judge_identity, llm_result, open_session
from pipelines.steps.shared.step import ExternalInputs, Step, StepCall, require_section

if TYPE_CHECKING:
    from generators.llm.prompt_files import PromptFiles
    from generators.llm.sending.budget import Usage
    from generators.llm.session import LLMSession

Judge = Callable[[StepCall, "LLMSession"], tuple[dict[str, Any], "Usage"]]
"""Judges what a step wrote; returns what was found as plain JSON types, and what it took."""
Settings = Callable[[Experiment], JudgeConfig | ControlJudgeConfig]
Rubrics = Callable[[Experiment, "PromptFiles"], dict[str, Any]]
"""Returns the digests of the rubrics that a judge reads."""


def judge_texts(experiment: Experiment) -> PromptFiles:
    """Open the prompts that the experiment names, or the packaged ones."""
    if experiment.generate is None:
        from generators.llm.prompt_files import PromptFiles

        return PromptFiles()
    from generators.making.externals import texts_of

    return texts_of(experiment.generate)


def _judge_step(
    name: str,
    judged: str,
    entry: str,
    *,
    version: int,
    judge: Judge,
    settings: Settings,
    config: Callable[[Experiment], dict[str, Any]],
    rubrics: Rubrics,
) -> Step:
    """Make a step in which an LLM judges the output of the step `judged`."""

    def run(call: StepCall) -> StepResult:
        experiment = call.experiment
        texts = judge_texts(experiment)
        section = f"{judged}.judge.endpoint"
        with open_session(call, settings(experiment).endpoint, texts, section) as session:
            found, usage = judge(call, session)
        return llm_result({**found, **rubrics(experiment, texts), **usage.to_json()})

    def external(outside: ExternalInputs) -> dict[str, Any]:
        experiment = outside.experiment
        own = judge_identity(settings(experiment).endpoint)
        return {**own, **rubrics(experiment, judge_texts(experiment))}

    return Step(
        name=name,
        version=version,
        entry=entry,
        run=run,
        config=config,
        inputs={judged: judged},
        external=external,
        locations=lambda experiment: {"base_url": settings(experiment).endpoint.base_url},
    )


def _reading_rubric(experiment: Experiment, texts: PromptFiles) -> dict[str, Any]:
    return {"rubric": texts.prompt(RUBRIC).digest}


def _answers_settings(experiment: Experiment) -> JudgeConfig:
    return experiment.evaluate.judge or JudgeConfig()


def _judge_answers(call: StepCall, session: LLMSession) -> tuple[dict[str, Any], Usage]:
    from evaluators.answers.judge import judge_answers

    found, usage = judge_answers(
        call.data("evaluate"),
        call.out,
        session,
        config=call.experiment.evaluate,
        progress=call.progress,
    )
    return found.to_json(), usage


def _answers_config(experiment: Experiment) -> dict[str, Any]:
    whole = plain(experiment.evaluate, EvaluateConfig)
    deciding = ("seed", "bootstrap", "min_controls")
    own = {name: whole[name] for name in deciding}
    return {"answers": _answers_settings(experiment).answers, **own}


JUDGE = _judge_step(
    "judge",
    "evaluate",
    "evaluators.answers.judge",
    version=3,
    judge=_judge_answers,
    settings=_answers_settings,
    config=_answers_config,
    rubrics=_reading_rubric,
)


def _tasks_settings(experiment: Experiment) -> JudgeConfig:
    return require_section(experiment, "tasks", experiment.tasks).judge or JudgeConfig()


def _judge_tasks(call: StepCall, session: LLMSession) -> tuple[dict[str, Any], Usage]:
    from evaluators.tasks.judged import judge_task_answers

    found, usage = judge_task_answers(
        call.data("tasks"),
        call.out,
        session,
        config=require_section(call.experiment, "tasks", call.experiment.tasks),
        progress=call.progress,
    )
    return found.to_json(), usage


def _tasks_config(experiment: Experiment) -> dict[str, Any]:
    whole = plain(require_section(experiment, "tasks", experiment.tasks))
    own = {name: whole[name] for name in ("seed", "bootstrap", "min_intervals")}
    return {"answers": _tasks_settings(experiment).answers, **own}


JUDGE_TASKS = _judge_step(
    "judge_tasks",
    "tasks",
    "evaluators.tasks.judged",
    version=1,
    judge=_judge_tasks,
    settings=_tasks_settings,
    config=_tasks_config,
    rubrics=_reading_rubric,
)


def _control_section(experiment: Experiment) -> ControlSection:
    return require_section(experiment, "control", experiment.control)


def _control_settings(experiment: Experiment) -> ControlJudgeConfig:
    return require_section(experiment, "control.judge", _control_section(experiment).judge)


def _judge_replies(call: StepCall, session: LLMSession) -> tuple[dict[str, Any], Usage]:
    from evaluators.control.llm_judge import judge_replies

    found, usage = judge_replies(
        call.data("control"),
        call.out,
        session,
        config=_control_section(call.experiment),
        progress=call.progress,
    )
    return found.model_dump(mode="json"), usage


def _control_config(experiment: Experiment) -> dict[str, Any]:
    section, judge = _control_section(experiment), _control_settings(experiment)
    return {
        "measures": list(judge.measures),
        "prompts": judge.prompts,
        "seed": section.seed,
        "bootstrap": section.bootstrap,
    }


def _control_rubrics(experiment: Experiment, texts: PromptFiles) -> dict[str, Any]:
    from evaluators.control.llm_judge import RUBRICS

    measures = _control_settings(experiment).measures
    return {"rubrics": {name: texts.prompt(RUBRICS[name]).digest for name in measures}}


JUDGE_CONTROL = _judge_step(
    "judge_control",
    "control",
    "evaluators.control.llm_judge",
    version=1,
    judge=_judge_replies,
    settings=_control_settings,
    config=_control_config,
    rubrics=_control_rubrics,
)
