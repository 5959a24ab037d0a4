"""Whether the target fits the experiment, found before an LLM is paid or a GPU is waited for."""

from __future__ import annotations

from collections.abc import Collection

from activation_store.model_files.files import ModelFiles
from core.documents.canonical import digest
from core.runtime import Runtime
from pipelines.experiment.config import Experiment
from pipelines.steps.shared.step import ExternalInputs
from trainers.config import TrainConfig

_DECODER = {"decoder", "lora"}
"""Settings on which it depends whether a decoder can be made."""
_CHECKED: set[str] = set()
"""What was found to be right in this process."""


def check_models(
    experiment: Experiment, outside: ExternalInputs, steps: Collection[str], *, here: bool
) -> None:
    """Check that the target can be loaded, read at the layers named, and be a decoder.

    No weights are read. A GGUF file is converted for it where this machine runs the experiment;
    else it is left to the run.

    Args:
        experiment: the experiment.
        outside: its models.
        steps: names of the steps that are to run.
        here: whether it is this machine that is to run it.

    Raises:
        ModelError: a model cannot be loaded or be a decoder, or lacks a layer.
        ConfigError: `runtime.device` is not here.
    """
    from activation_store.target.load import model_shape, pick_device

    if here:
        pick_device(experiment.runtime)
    train = experiment.train if "train" in steps else None
    for model, decoder in ((outside.model, train), (outside.shift_model, None)):
        if model is not None and (here or not model.is_gguf):
            _check(model, decoder, experiment.runtime, here=here)
    read = "dump" in steps or (train is not None and train.activations == "live")
    if read and (here or not outside.model.is_gguf):
        shape = model_shape(outside.model)
        for layer in experiment.dump.layers:
            shape.layer(layer, "dump.layers")


def _check(model: ModelFiles, train: TrainConfig | None, runtime: Runtime, *, here: bool) -> None:
    """Check a model once in a process.

    Args:
        model: its files.
        train: what is made of it; None for no decoder.
        runtime: how it is loaded.
        here: whether this machine runs it.
    """
    from activation_store.target.preflight import check_loadable

    decoder = None if train is None else train.model_dump(mode="json", include=_DECODER)
    key = digest([model.digests(), decoder, runtime.model_dump(mode="json"), here])
    if key in _CHECKED:
        return
    net = check_loadable(model, runtime, here=here)
    if net is not None and train is not None:
        from decoder.model import check_base

        check_base(net, model, config=train.decoder, lora=train.lora)
    _CHECKED.add(key)
