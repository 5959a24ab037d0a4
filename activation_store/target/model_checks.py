"""Checks of a model and its adapter, before and after their weights are loaded."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Collection
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from activation_store.model_files.files import ADAPTER_CONFIG, ModelFiles, read_json_object
from core.errors import ModelError

_LOG = logging.getLogger(__name__)
_EMBEDDINGS = ("embed_tokens.weight", "lm_head.weight", "wte.weight", "embed_in.weight")


def check_quantization(model: ModelFiles, config: Any) -> None:
    """Refuse numbers that follow from which rows share a batch.

    Raises:
        ModelError: activations are quantised with one scale for all tokens of a batch.
    """
    settings = getattr(config, "quantization_config", None) or {}
    own = settings if isinstance(settings, dict) else settings.to_dict()
    groups = (own.get("config_groups") or {}).values()
    inputs = [group.get("input_activations") or {} for group in groups if isinstance(group, dict)]
    a_batch = any(one.get("dynamic") and one.get("strategy") == "tensor" for one in inputs)
    fp8 = own.get("quant_method") == "fp8" and own.get("activation_scheme") == "dynamic"
    if a_batch or (fp8 and not own.get("weight_block_size")):
        raise ModelError(
            f"model {model.ref}: its activations are quantised with a scale for a whole batch, so "
            "that a row's numbers follow from its neighbours. Use weights that are not quantised "
            "so."
        )


def check_whole(model: ModelFiles, missing: Collection[str]) -> None:
    """Refuse a model of which transformers has drawn a part at random.

    Raises:
        ModelError: weights that its config asks for stand in none of its files.
    """
    if missing:
        raise ModelError(
            f"model {model.ref}: its files hold no {min(missing)} ({len(missing)} weights of its "
            "config are missing), which would be drawn at random. Fetch the model again, or mend "
            "its config.json (a head without weights of its own: tie_word_embeddings)."
        )


def check_adapter(model: ModelFiles, net: Any) -> None:
    """Compare an adapter with the model that it is to be put on.

    Raises:
        ModelError: it holds an embedding of another vocabulary.
    """
    assert model.adapter is not None
    named = read_json_object(model.adapter / ADAPTER_CONFIG).get("base_model_name_or_path") or ""
    if named and Path(named).name.lower() != Path(model.ref.partition("@")[0]).name.lower():
        _LOG.warning(
            "adapter %s: its base is said to be %s, and the model is %s.",
            *(model.adapter, named, model.ref),
        )
    rows = net.get_input_embeddings().weight.shape[0]
    for name, own in _adapter_shapes(model.adapter).items():
        if name.endswith(_EMBEDDINGS) and own[0] != rows:
            raise ModelError(
                f"adapter {model.adapter}: its vocabulary has {own[0]} tokens ({name}), and model "
                f"{model.ref} has {rows}. Merge the adapter into a model with the resized "
                "vocabulary, and use that."
            )


def _adapter_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Read the shapes of an adapter's tensors; none of what peft itself is going to refuse."""
    found: dict[str, tuple[int, ...]] = {}
    for file in folder.glob("adapter_model*.safetensors"):
        with contextlib.suppress(SafetensorError), safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - no mapping
                found[name] = tuple(tensors.get_slice(name).get_shape())
    return found
