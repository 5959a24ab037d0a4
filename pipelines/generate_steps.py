"""The steps of generation by an LLM: conversations, and questions about them."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from generators.generate_config import GenerateSection
from pipelines.config import Experiment
from pipelines.console import Console
from pipelines.identity import plain
from pipelines.records import StepResult
from pipelines.step import Outside, Step, StepCall

if TYPE_CHECKING:
    from generators.endpoint import ResolvedEndpoint

REQUESTS = "requests.sqlite"
"""The request log, in the artifact root: a reply that was had once serves every run there."""


def _section(experiment: Experiment) -> GenerateSection:
    assert experiment.generate is not None
    return experiment.generate


def _endpoint(call: StepCall) -> AbstractContextManager[ResolvedEndpoint]:
    """The LLM, for as long as the context lasts; leave it before torch works."""
    from activation_store.gguf import served
    from generators.endpoint import open_endpoint

    weights = call.outside.generator_gguf
    return open_endpoint(
        _section(call.experiment).endpoint,
        gguf=None if weights is None else served(weights),
        weights=call.outside.generator_weights,
        threads=call.experiment.runtime.threads,
    )


def _conversations(call: StepCall) -> StepResult:
    from generators.generation import generate_conversations, texts_of

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
            say=Console().say,
        )
    return _result(counts)


def _questions(call: StepCall) -> StepResult:
    from generators.generation import generate_questions, texts_of

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
            say=Console().say,
        )
    return _result(counts)


def _result(counts: dict[str, Any]) -> StepResult:
    return StepResult(counts=counts, tokens=sum(counts["tokens"].values()), cost=counts["cost_usd"])


def _external(outside: Outside, table: str) -> dict[str, Any]:
    from generators.generation import generation_externals

    section = _section(outside.experiment)
    return generation_externals(section, weights=outside.generator_weights)[table]


def _location(experiment: Experiment) -> dict[str, Any]:
    section = _section(experiment)
    endpoint = section.endpoint
    return {
        "base_url": endpoint.base_url,
        "prompts": section.prompts,
        "prices": endpoint.prices,
    }


GENERATED = (
    Step(
        name="conversations",
        version=1,
        entry="generators.generation",
        run=_conversations,
        config=lambda experiment: plain(_section(experiment).conversations),
        inputs={},
        external=lambda outside: _external(outside, "conversations"),
        locations=_location,
    ),
    Step(
        name="questions",
        version=1,
        entry="generators.generation",
        run=_questions,
        config=lambda experiment: plain(_section(experiment).questions),
        inputs={"conversations": "conversations"},
        external=lambda outside: _external(outside, "questions"),
        locations=_location,
    ),
)
