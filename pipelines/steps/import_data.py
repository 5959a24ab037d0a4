"""The steps that import data: LatentQA's published files, or conversations of the user's own."""

from __future__ import annotations

from typing import Any

from core.documents.canonical import digest
from generators.exchange.config import ImportConfig
from pipelines.artifacts.cache_key import plain
from pipelines.artifacts.records import StepResult
from pipelines.experiment.config import Experiment
from pipelines.steps.shared.step import ExternalInputs, Step, StepCall, require_section


def _import_conversations(call: StepCall) -> StepResult:
    from generators.exchange.importing import import_conversations

    config = ImportConfig.model_validate(_import_config(call.experiment))
    return StepResult(
        counts=import_conversations(call.outside.data_folder, call.out, config=config)
    )


def _import_questions(call: StepCall) -> StepResult:
    from generators.exchange.importing import import_questions

    counts = import_questions(call.outside.data_folder, call.data("conversations"), call.out)
    return StepResult(counts=counts)


def _own_conversations(call: StepCall) -> StepResult:
    from generators.exchange.conversation_files import import_own_conversations

    config = ImportConfig.model_validate(_import_config(call.experiment))
    return StepResult(
        counts=import_own_conversations(call.outside.data_folder, call.out, config=config)
    )


def _own_questions(call: StepCall) -> StepResult:
    from generators.exchange.conversation_files import import_own_questions

    config = ImportConfig.model_validate(_import_config(call.experiment))
    counts = import_own_questions(
        call.outside.data_folder, call.data("conversations"), call.out, rows=config.rows
    )
    return StepResult(counts=counts)


def _import_config(experiment: Experiment) -> dict[str, Any]:
    return plain(require_section(experiment, "data", experiment.data), ImportConfig)


def _data_location(experiment: Experiment) -> dict[str, Any]:
    return {"data": experiment.data.path if experiment.data else None}


def _view_digests(outside: ExternalInputs) -> dict[str, str]:
    views = {name: d for name, d in outside.data_digests.items() if name != "qa.json"}
    return {**views, "qa.json labels": outside.labels_digest}


IMPORTED = (
    Step(
        name="conversations",
        version=1,
        entry="generators.exchange.importing",
        run=_import_conversations,
        config=_import_config,
        inputs={},
        external=_view_digests,
        locations=_data_location,
    ),
    Step(
        name="questions",
        version=1,
        entry="generators.exchange.importing",
        run=_import_questions,
        config=lambda experiment: {},
        inputs={"conversations": "conversations"},
        external=lambda outside: {"qa.json": outside.data_digests["qa.json"]},
        locations=_data_location,
    ),
)

OWN = (
    Step(
        name="conversations",
        version=7,
        entry="generators.exchange.conversation_files",
        run=_own_conversations,
        config=_import_config,
        inputs={},
        external=lambda outside: {"messages": outside.own_messages_digest},
        locations=_data_location,
    ),
    Step(
        name="questions",
        version=7,
        entry="generators.exchange.conversation_files",
        run=_own_questions,
        config=lambda experiment: {"rows": _import_config(experiment)["rows"]},
        inputs={"conversations": "conversations"},
        external=lambda outside: {"files": digest(list(outside.own_digests.values()))},
        locations=_data_location,
    ),
)
"""Conversations of the user's own."""
