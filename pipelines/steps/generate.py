"""The steps of generation: an LLM writes conversations, and questions about them."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from generators.making.config import GenerateSection
from pipelines.artifacts.identity import plain
from pipelines.artifacts.records import StepResult
from pipelines.experiment.config import Experiment
from pipelines.steps.step import ExternalInputs, Step, StepCall

if TYPE_CHECKING:
    from generators.llm.endpoint.resolve import ResolvedEndpoint

REQUESTS = "requests.sqlite"
"""The request log, in the artifact root: a reply that was received once serves every run there."""


def _section(experiment: Experiment) -> GenerateSection:
    assert experiment.generate is not None
    return experiment.generate


def _with_earlier(outside: ExternalInputs) -> GenerateSection:
    """Return the section with the places of the earlier versions that it names."""
    return _section(outside.experiment).model_copy(update={"earlier": outside.earlier})


def _endpoint(call: StepCall) -> AbstractContextManager[ResolvedEndpoint | None]:
    """Open the LLM for as long as the context lasts; None where no LLM is needed.

    Leave it before torch works: the embedded server shares the machine's threads.
    """
    from activation_store.target.gguf import served
    from generators.llm.endpoint.resolve import open_endpoint

    if not call.outside.needs_llm:
        return nullcontext()
    weights = call.outside.generator_gguf
    return open_endpoint(
        _section(call.experiment).endpoint,
        gguf=None if weights is None else served(weights),
        weights=call.outside.generator_weights,
        threads=call.experiment.runtime.threads,
        pool=call.pool,
    )


def _conversations(call: StepCall) -> StepResult:
    from generators.making.generation import earlier_tables, generate_conversations, texts_of

    section, runtime = _section(call.experiment), call.experiment.runtime
    with _endpoint(call) as endpoint:
        counts = generate_conversations(
            call.out,
            call.root / REQUESTS,
            config=section.conversations,
            endpoint=endpoint,
            concurrency=runtime.concurrency,
            progress=call.progress,
            texts=texts_of(section),
            say=call.say,
            sources=call.outside.text_sources,
            earlier=earlier_tables(_with_earlier(call.outside)),
        )
    return _result(counts)


def _questions_config(experiment: Experiment) -> dict[str, Any]:
    """Return the settings of the questions; tables of before there were yes/no ones are found."""
    settings = plain(_section(experiment).questions)
    if not settings["yes_no"]:
        del settings["yes_no"]
    return settings


def _questions(call: StepCall) -> StepResult:
    from generators.making.generation import generate_questions, texts_of

    section, runtime = _section(call.experiment), call.experiment.runtime
    with _endpoint(call) as endpoint:
        counts = generate_questions(
            call.data("conversations"),
            call.out,
            call.root / REQUESTS,
            config=section.questions,
            endpoint=endpoint,
            concurrency=runtime.concurrency,
            progress=call.progress,
            texts=texts_of(section),
            say=call.say,
        )
    return _result(counts)


def _result(counts: dict[str, Any]) -> StepResult:
    return StepResult(counts=counts, tokens=sum(counts["tokens"].values()), cost=counts["cost_usd"])


def _external(outside: ExternalInputs, table: str) -> dict[str, Any]:
    from generators.making.generation import generation_externals

    externals = generation_externals(
        _with_earlier(outside),
        weights=outside.generator_weights,
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
        name: plan.source.path
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
