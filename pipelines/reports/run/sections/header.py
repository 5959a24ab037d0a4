"""The header of a report: which target, whose rows, which views and layers, how it was trained."""

from __future__ import annotations

import json
from collections.abc import Sequence

from activation_store.model_files.files import public_name
from core.records.table_files import read_questions
from core.records.tables import VIEWS, Conversation
from core.text.redact import redact
from core.text.wording import join, sort_known
from decoder.binding import SIDECAR
from decoder.config import DecoderConfig
from generators.exchange.dataset_card import count_sources
from pipelines.experiment.config import Experiment
from pipelines.reports.run.inputs import ReportInputs, artifact_file

_MOST_SOURCES = 4


def header_facts(
    inputs: ReportInputs, conversations: Sequence[Conversation]
) -> list[tuple[str, str]]:
    """Return what a reader wants to know first, as (name, value).

    Args:
        inputs: of the report.
        conversations: rows of the run; empty where it made none.
    """
    experiment = inputs.experiment
    train = experiment.train
    adapter = experiment.dump.adapter
    read = _read_layers(inputs)
    facts = [
        ("target", redact(public_name(experiment.dump.model))),
        ("target’s adapter", None if adapter is None else redact(public_name(adapter))),
        ("rows", _writers(inputs, conversations)),
        ("replies", "the target’s own" if experiment.complete is not None else None),
        ("views trained on", ", ".join(_trained_views(experiment, conversations))),
        ("read layer" if len(read) == 1 else "read layers", ", ".join(map(str, read))),
        ("write layer", str(train.decoder.write_layer)),
        ("LoRA rank", str(train.lora.rank)),
        ("learning rate", str(train.learning_rate)),
    ]
    return [(name, value) for name, value in facts if value]


def _writers(inputs: ReportInputs, conversations: Sequence[Conversation]) -> str:
    """Name who wrote the rows: files, models, or code."""
    experiment = inputs.experiment
    path = artifact_file(inputs.step("questions"), "questions.parquet")
    known = {row.example_id for row in conversations}
    questions = [q for q in (read_questions(path) if path else []) if q.example_id in known]
    names: dict[str, None] = {}
    for source in count_sources(conversations, questions):
        kind, _, name = source.partition(" ")
        if kind == "model" and experiment.generate is not None:
            # the rows name weights by digest, the experiment by name
            name = public_name(experiment.generate.endpoint.model)
        names[{"import": name, "model": f"written by {name}"}.get(kind, source)] = None
    shown = list(names)[:_MOST_SOURCES]
    more = len(names) - len(shown)
    return redact(join(shown) + (f" and {more} more" if more else ""))


def _trained_views(experiment: Experiment, conversations: Sequence[Conversation]) -> list[str]:
    """Return the views of the experiment's training of which there are rows to train on."""
    views = list(experiment.train.views)
    found = {row.view for row in conversations if row.split == "train"}
    return sort_known([view for view in views if view in found] if found else views, VIEWS)


def _read_layers(inputs: ReportInputs) -> tuple[float, ...]:
    """Return the blocks that the decoder reads: those it was trained on, else the experiment's."""
    experiment = inputs.experiment
    decoder, read = experiment.train.decoder, experiment.train.decoder.read_layer
    path = artifact_file(inputs.step("train"), SIDECAR)
    if path is not None:
        sidecar = json.loads(path.read_bytes())
        decoder = DecoderConfig.model_validate(sidecar["decoder"])
        read = sidecar["read_layer"]
    asked = experiment.evaluate.read_layer
    if asked is not None:
        return (asked,)
    if decoder.read_layers:
        return decoder.read_layers
    return experiment.dump.layers if read is None else (read,)
