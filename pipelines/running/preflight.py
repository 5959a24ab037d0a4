"""Whether the target fits the experiment, found before an LLM is paid or a GPU is waited for."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from activation_store.model_files.files import ModelFiles
from core.documents.canonical import digest
from core.errors import ConfigError
from core.runtime import Runtime
from decoder.config import DecoderConfig
from pipelines.experiment.config import Experiment
from pipelines.steps.shared.step import ExternalInputs
from trainers.config import TrainConfig

if TYPE_CHECKING:
    from activation_store.target.load import Shape

_DECODER = {"decoder", "lora"}
"""Settings on which it depends whether a decoder can be made."""
_CHECKED: dict[str, Shape] = {}
"""Shapes of the models that were found to be right in this process."""


def check_models(
    experiment: Experiment, outside: ExternalInputs, steps: Collection[str], *, here: bool
) -> None:
    """Check that the target can be loaded, read at the layers named, and be a decoder.

    No weights are read. A GGUF file is converted for it where this machine runs the experiment;
    else its header is read.

    Args:
        experiment: the experiment.
        outside: its models.
        steps: names of the steps that are to run.
        here: whether it is this machine that is to run it.

    Raises:
        ModelError: a model cannot be loaded or be a decoder, or lacks a layer.
        ConfigError: `runtime.device` is not here, or the decoder reads a block that is not stored.
    """
    from activation_store.target.load import pick_device

    if here:
        pick_device(experiment.runtime)
    train = experiment.train if "train" in steps else None
    shape = _check(outside.model, train, experiment.runtime, here=here)
    if outside.shift_model is not None:
        _check(outside.shift_model, None, experiment.runtime, here=here)
    if "dump" in steps or (train is not None and train.activations == "live"):
        stored = [shape.layer(layer, "dump.layers") for layer in experiment.dump.layers]
        if train is not None:
            _check_read_layers(train.decoder, shape, stored)


def _check_read_layers(decoder: DecoderConfig, shape: Shape, stored: Sequence[int]) -> None:
    """Refuse a decoder that reads a block of which nothing is stored."""
    decoder = decoder.with_block_numbers(shape)
    one = () if decoder.read_layer is None else (decoder.read_layer,)
    for layer in decoder.read_layers or one:
        if layer not in stored:
            raise ConfigError(
                f"train.decoder.read_layer: got {layer}, expected one of {list(stored)}, the "
                "blocks of this model that dump.layers names. Name it there too."
            )


def _check(model: ModelFiles, train: TrainConfig | None, runtime: Runtime, *, here: bool) -> Shape:
    """Check a model once in a process, and return its shape.

    Args:
        model: its files.
        train: what is made of it; None for no decoder.
        runtime: how it is loaded.
        here: whether this machine runs it.
    """
    from activation_store.target.load import model_shape, shape_of
    from activation_store.target.preflight import check_loadable

    decoder = None if train is None else train.model_dump(mode="json", include=_DECODER)
    key = digest([model.digests(), decoder, runtime.model_dump(mode="json"), here])
    if key in _CHECKED:
        return _CHECKED[key]
    net = check_loadable(model, runtime, here=here)
    if net is not None and train is not None:
        from decoder.model import check_base

        check_base(net, model, config=train.decoder, lora=train.lora)
    _CHECKED[key] = model_shape(model) if net is None else shape_of(net.config, model.ref)
    return _CHECKED[key]
