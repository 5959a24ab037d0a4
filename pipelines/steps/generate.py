"""The steps of generation: an LLM writes conversations, and questions about them."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from generators.making.config import GenerateSection
from pipelines.artifacts.cache_key import plain
from pipelines.artifacts.records import StepResult
from pipelines.experiment.config import Experiment
from pipelines.steps.shared.llm_session import llm_result, open_session, weights_identity
from pipelines.steps.shared.step import ExternalInputs, Step, StepCall

if TYPE_CHECKING:
    from generators.llm.session import LLMSession


def _section(experiment: Experiment) -> GenerateSection:
    assert experiment.generate is not None
    return experiment.generate


def _with_earlier(outside: ExternalInputs) -> GenerateSection:
    """Return the section with the places of the earlier versions that it names."""
    return _section(outside.experiment).model_copy(update={"earlier": outside.earlier})


def _session(call: StepCall) -> AbstractContextManager[LLMSession]:
    from generators.making.externals import texts_of

    section = _section(call.experiment)
    endpoint = section.endpoint if call.outside.needs_llm else None
    return open_session(call, endpoint, texts_of(section))


def _conversations(call: StepCall) -> StepResult:
    from generators.making.externals import earlier_tables
    from generators.making.generation import generate_conversations

    section = _section(call.experiment)
    with _session(call) as session:
        counts = generate_conversations(
            call.out,
            session,
            config=section.conversations,
            progress=call.progress,
            sources=call.outside.text_sources,
            earlier=earlier_tables(_with_earlier(call.outside)),
        )
    return llm_result(counts)


_LATER_SETTINGS = ("yes_no", "shared")
"""Settings that older tables were made without."""


def _questions_config(experiment: Experiment) -> dict[str, Any]:
    """Return the settings of the questions; tables of before there was a choice are found."""
    settings = plain(_section(experiment).questions)
    return {name: value for name, value in settings.items() if value or name not in _LATER_SETTINGS}


def _questions(call: StepCall) -> StepResult:
    from generators.making.generation import generate_questions

    with _session(call) as session:
        counts = generate_questions(
            call.data("conversations"),
            call.out,
            session,
            config=_section(call.experiment).questions,
            progress=call.progress,
        )
    return llm_result(counts)


def _external(outside: ExternalInputs, table: str) -> dict[str, Any]:
    from generators.making.externals import generation_externals

    endpoint = _section(outside.experiment).endpoint
    externals = generation_externals(
        _with_earlier(outside),
        weights=weights_identity(endpoint) if outside.needs_llm else None,
        sources=outside.text_sources,
        imported=outside.experiment.data is not None,
    )
    return externals[table]


def _conversations_config(experiment: Experiment) -> dict[str, Any]:
    """Return every field but the places of texts, whose digests are external."""
    config = plain(_section(experiment).conversations)
    for plan in config["kinds"].values():
        if plan["categories"] is None:
            del plan["categories"]  # tables from before there was a choice keep their keys
        source = plan.pop("source")
        if source is not None:
            del source["path"], source["revision"]
            plan["source"] = source
    return config


def _location(experiment: Experiment) -> dict[str, Any]:
    section = _section(experiment)
    sources = {
        name: plan.source.path if isinstance(plan.source.path, str) else list(plan.source.path)
        for name, plan in section.conversations.kinds.items()
        if plan.source is not None
    }
    endpoint = section.endpoint
    place: dict[str, Any] = {
        "base_url": endpoint.base_url,
        "prompts": section.prompts,
        "prices": endpoint.prices,
    }
    if section.earlier:
        place["earlier"] = list(section.earlier)
    return {**place, "sources": sources} if sources else place


GENERATED = (
    Step(
        name="conversations",
        version=2,
        entry="generators.making.generation",
        run=_conversations,
        config=_conversations_config,
        inputs={},
        external=lambda outside: _external(outside, "conversations"),
        locations=_location,
    ),
    Step(
        name="questions",
        version=2,
        entry="generators.making.generation",
        run=_questions,
        config=_questions_config,
        inputs={"conversations": "conversations"},
        external=lambda outside: _external(outside, "questions"),
        locations=_location,
    ),
)
