"""PEFT adapters: on a target's weights or beside them, whole or not at all."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from activation_store.model_files.embedded_model import REPOSITORY
from activation_store.model_files.files import ADAPTER_CONFIG, ModelFiles, read_model_json
from activation_store.model_files.quiet import quiet_libraries
from activation_store.target.model_checks import describe_failure
from core.errors import ModelError, first_line

_EMBEDDINGS = tuple(
    f"{name}.weight"
    for name in ("embed_tokens", "lm_head", "wte", "embed_in", "embed_out", "word_embeddings")
)
_LOG = logging.getLogger(__name__)


def add_adapter(net: Any, model: ModelFiles, *, merged: bool) -> Any:
    """Put a target's own adapter on its weights.

    Args:
        net: the target without it.
        model: the target's files.
        merged: whether it is merged into the weights, or works beside them.

    Raises:
        ModelError: as `load_adapter`; or it holds an embedding of another vocabulary, or cannot be
            merged.
    """
    assert model.adapter is not None
    _check_vocabulary(model, net)
    if merged:
        _untie(net)
    loaded = load_adapter(net, model.adapter)
    return _merge(loaded, model.adapter) if merged else loaded


def load_adapter(net: nn.Module, folder: Path) -> Any:
    """Put the PEFT adapter in `folder` on `net`.

    Raises:
        ModelError: the adapter cannot be read, does not fit `net`, or changes no weights.
    """
    from peft import PeftConfig, PeftModel, get_peft_model_state_dict

    with quiet_libraries():
        try:
            config: Any = PeftConfig.from_pretrained(str(folder))
            if next(net.parameters()).is_meta and hasattr(config, "init_lora_weights"):
                config.init_lora_weights = True  # others decompose weights (PiSSA), which are none
            loaded = PeftModel.from_pretrained(net, folder, config=config)
        except Exception as error:  # a pickle, another version's settings: all kinds of errors
            why = describe_failure(error, folder)
            raise ModelError(
                f"adapter {folder}: peft cannot load it into this model ({why})."
            ) from error
        kind: Any = loaded.base_model
        if not hasattr(kind, "merge_and_unload"):
            raise ModelError(
                f"adapter {folder}: has type {loaded.active_peft_config.peft_type.value}, "
                "expected one that changes weights, such as LoRA."
            )
        used = get_peft_model_state_dict(loaded, save_embedding_layers=False)
    _check_tensors(folder, used, kind.prefix)
    return loaded


def _merge(net: Any, folder: Path) -> Any:
    try:
        return net.merge_and_unload()
    except (ValueError, RuntimeError, NotImplementedError, AttributeError) as error:
        raise ModelError(
            f"adapter {folder}: peft cannot merge it into this model ({first_line(error)}). Use "
            "weights that are not quantised, or a model into which it is merged."
        ) from error


def _untie(net: Any) -> None:
    """Give a head that shares the embedding's weights its own: adapters change one of the two."""
    head = net.get_output_embeddings()
    if head is not None and head.weight is net.get_input_embeddings().weight:
        head.weight = nn.Parameter(head.weight.detach().clone())


def _check_vocabulary(model: ModelFiles, net: Any) -> None:
    """Compare an adapter with the model that it is to be put on.

    Raises:
        ModelError: it holds an embedding of another vocabulary.
    """
    assert model.adapter is not None
    named = read_model_json(model.adapter / ADAPTER_CONFIG).get("base_model_name_or_path")
    base = REPOSITORY if model.ref == "embedded" else model.ref.partition("@")[0]
    if named and Path(str(named)).name.lower() != Path(base).name.lower():
        _warn_once(
            f"adapter {model.adapter}: its base is said to be {named}, and the model is "
            f"{model.ref}."
        )
    rows = net.get_input_embeddings().weight.shape[0]
    for name, own in _adapter_shapes(model.adapter).items():
        if name.endswith(_EMBEDDINGS) and own[0] != rows:
            raise ModelError(
                f"adapter {model.adapter}: its vocabulary has {own[0]} tokens ({name}), and model "
                f"{model.ref} has {rows}. Merge the adapter into a model with the resized "
                "vocabulary, and use that."
            )


@functools.cache
def _warn_once(line: str) -> None:
    _LOG.warning("%s", line)


def _check_tensors(folder: Path, used: Collection[str], prefix: str) -> None:
    """Compare the tensors of an adapter's file with those that it has on the model.

    peft loads those whose names agree, and leaves the others out with no more than a warning.

    Args:
        folder: the adapter's.
        used: names of its tensors on the model.
        prefix: begins the names of what its kind trains.

    Raises:
        ModelError: it lacks one, or has one for which the model has no place.
    """
    found = _adapter_shapes(folder)
    trained = {name for name in found if prefix in name}
    wanted = {name for name in used if prefix in name}
    for names, what in ((wanted - trained, "lacks"), (trained - wanted, "has, with no place for,")):
        if names:
            raise ModelError(
                f"adapter {folder}: it {what} {min(names)} ({len(names)} of {len(wanted)} tensors) "
                "on this model, so that it would be loaded in part. Use the model that it was "
                "trained on, or fetch it again."
            )


def _adapter_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Read the shapes of an adapter's tensors; none of what peft itself is going to refuse."""
    found: dict[str, tuple[int, ...]] = {}
    for pickled in folder.glob("adapter_model*.bin"):
        with contextlib.suppress(Exception):  # peft tells what is wrong with it
            own = torch.load(pickled, map_location="cpu", mmap=True, weights_only=True)
            found |= {name: tuple(tensor.shape) for name, tensor in own.items()}
    for file in folder.glob("adapter_model*.safetensors"):
        with contextlib.suppress(SafetensorError), safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - no mapping
                found[name] = tuple(tensors.get_slice(name).get_shape())
    return found
