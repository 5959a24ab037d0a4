"""The step `complete`: the target replies, here or behind an endpoint."""

from __future__ import annotations

import contextlib
from typing import Any

from activation_store.target.config import CompleteConfig
from pipelines.artifacts.cache_key import plain
from pipelines.artifacts.records import StepResult
from pipelines.experiment.config import Experiment
from pipelines.steps.shared.llm_session import open_session, weights_identity
from pipelines.steps.shared.step import (
    ExternalInputs,
    Step,
    StepCall,
    model_location,
    require_section,
)

_COMPUTED = ("compute_dtype", "batch_rows")
"""Settings of how replies are computed here."""


_SERVED = 2
"""Raised when a server's replies are read otherwise; part of the key where a server writes them."""
_KEPT = {"disobedient": "keep", "neutral_system": None, "attempts": 1}
"""Settings that leave replies as they are, and are no part of the key then."""


def _complete(call: StepCall) -> StepResult:
    from activation_store.target.replies import complete
    from activation_store.target.reply_batches import ReplyJob
    from generators.llm.prompt_files import PromptFiles

    config = _replies(call.experiment)
    with contextlib.ExitStack() as stack:
        session = None
        if config.endpoint is not None:
            opened = open_session(call, config.endpoint, PromptFiles(), "complete.endpoint")
            session = stack.enter_context(opened)
        job = ReplyJob(
            conversations=call.data("conversations"),
            work=call.work,
            config=config,
            model=call.outside.model,
            runtime=call.experiment.runtime,
        )
        result = complete(
            job,
            call.out,
            session=session,
            progress=call.progress,
            pool=call.pool,
        )
    spent = result.served
    if spent is None:
        return StepResult(counts=result.to_json())
    tokens = sum(spent["tokens"].values())
    return StepResult(counts=result.to_json(), tokens=tokens, cost=spent["cost_usd"])


def _replies(experiment: Experiment) -> CompleteConfig:
    return require_section(experiment, "complete", experiment.complete)


def _config(experiment: Experiment) -> dict[str, Any]:
    """Return what shapes replies; where a server writes them, none of how they are computed."""
    own = plain(_replies(experiment))
    served = own.pop("endpoint") is not None
    for name in ("check_rows", "min_agreement", *(_COMPUTED if served else ())):
        del own[name]
    if served:
        own["served"] = _SERVED
    return {name: value for name, value in own.items() if name not in _KEPT or value != _KEPT[name]}


def _external(outside: ExternalInputs) -> dict[str, Any]:
    from generators.llm.endpoint.resolve import model_identity

    endpoint = _replies(outside.experiment).endpoint
    if endpoint is None:
        return outside.model_digests
    server = model_identity(endpoint, weights_identity(endpoint))
    return {**outside.model_digests, "server": server}


def _location(experiment: Experiment) -> dict[str, Any]:
    endpoint = _replies(experiment).endpoint
    server = {} if endpoint is None else {"base_url": endpoint.base_url}
    return {**model_location(experiment), **server}


COMPLETE = Step(
    name="complete",
    version=8,
    entry="activation_store.target.replies",
    run=_complete,
    config=_config,
    inputs={"conversations": "conversations"},
    external=_external,
    locations=_location,
)
