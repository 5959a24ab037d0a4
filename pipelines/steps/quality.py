"""The optional step `quality`: flag and judge the data set's rows, and drop some."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from generators.llm.prompt_files import PromptFiles
from generators.quality.config import QualityConfig, QualitySection
from pipelines.artifacts.cache_key import plain
from pipelines.artifacts.records import StepResult
from pipelines.experiment.config import Experiment
from pipelines.steps.shared.llm_session import judge_identity, llm_result, open_session
from pipelines.steps.shared.step import ExternalInputs, Step, StepCall, require_section

QUALITY = "quality"


def quality_step(conversations: str) -> Step:
    """Return the step, which reads what the step `conversations` makes."""
    return Step(
        name=QUALITY,
        version=6,
        entry="generators.quality.check",
        run=_check,
        config=lambda experiment: plain(_section(experiment), QualityConfig),
        inputs={"conversations": conversations, "questions": "questions"},
        external=_external,
        locations=_location,
    )


def _section(experiment: Experiment) -> QualitySection:
    return require_section(experiment, "quality", experiment.quality)


def _texts(section: QualitySection) -> PromptFiles:
    return PromptFiles(prompts=Path(section.prompts) if section.prompts else None)


def _check(call: StepCall) -> StepResult:
    from generators.quality.check import check_quality, prompts_of

    section = _section(call.experiment)
    effects = None if section.control_effect is None else _measure_effects(call)
    endpoint = section.endpoint if prompts_of(section) else None
    with open_session(call, endpoint, _texts(section), "quality.endpoint") as session:
        counts = check_quality(
            call.data("conversations"),
            call.data("questions"),
            call.out,
            session,
            config=section,
            progress=call.progress,
            effects=effects,
        )
    return llm_result(counts)


def _measure_effects(call: StepCall) -> dict[str, float]:
    """Measure the control effect of every row with a completion, with the target."""
    from activation_store.target.load import (
        load_model,
        load_tokenizer,
        model_shape,
        pick_device,
        use_threads,
    )
    from core.records.table_files import CONVERSATIONS_FILE, read_conversations
    from evaluators.measure.control_effect import measure_control_effects

    runtime, model = call.experiment.runtime, call.outside.model
    use_threads(runtime)
    rows = read_conversations(call.data("conversations") / CONVERSATIONS_FILE)
    net = load_model(model, dtype="float32", device=pick_device(runtime), runtime=runtime)
    longest = model_shape(model).max_positions
    return measure_control_effects(net, load_tokenizer(model), rows, rows, longest=longest)


def _external(outside: ExternalInputs) -> dict[str, Any]:
    """Return the identity of the judge, how it is held to schemas, and digests of its prompts."""
    from generators.quality.check import prompts_of

    section = _section(outside.experiment)
    prompts = prompts_of(section)
    target = {} if section.control_effect is None else {"target": outside.model_digests}
    if not prompts:
        return target
    return {
        **target,
        **judge_identity(section.endpoint),
        "texts": _texts(section).digests(prompts=prompts, seeds=()),
    }


def _location(experiment: Experiment) -> dict[str, Any]:
    section = _section(experiment)
    return {"base_url": section.endpoint.base_url, "prompts": section.prompts}
