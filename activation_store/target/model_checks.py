"""Checks of a model, before and after its weights are loaded."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

from activation_store.model_files.files import ModelFiles, weight_files
from core.errors import ModelError, first_line

_POINTER, _POINTER_BYTES = b"version https://git-lfs", 1024
_SCALE = re.compile(
    r"(?:weight_scale(?:_inv|_2)?|input_scale|q?zeros|qweight|weight_packed|scales|absmax)$"
)
"""Ends of names of tensors without which quantised weights cannot be read."""


def quantization_of(config: Any, ref: str) -> dict[str, Any]:
    """Return the quantisation that a model's config names; empty for none.

    Args:
        config: of transformers.
        ref: the model's reference, for the message.

    Raises:
        ModelError: it is no object, or of a kind that transformers does not know.
    """
    found = (
        getattr(own, "quantization_config", None) for own in (config, config.get_text_config())
    )
    settings: Any = next((one for one in found if one is not None), {})
    own = settings.to_dict() if hasattr(settings, "to_dict") else settings
    if not isinstance(own, dict):
        raise ModelError(f"model {ref}: quantization_config in its config.json is not an object.")
    bitsandbytes = own.get("load_in_4bit") or own.get("load_in_8bit")
    method = own.get("quant_method")
    if own and not bitsandbytes and method not in AUTO_QUANTIZATION_CONFIG_MAPPING:
        # transformers would read such weights as if they were not quantised
        raise ModelError(
            f"model {ref}: its weights are quantised by {method!r}, which transformers does not "
            "know. Use weights that are not quantised, or quantised in a way that it knows."
        )
    return own


def check_quantization(model: ModelFiles, config: Any) -> bool:
    """Tell whether a model is quantised; refuse numbers that follow from which rows share a batch.

    Raises:
        ModelError: activations are quantised with one scale for all tokens of a batch; or as
            `quantization_of`.
    """
    own = quantization_of(config, model.ref)
    groups = own.get("config_groups")
    found = [
        group.get("input_activations")
        for group in (groups.values() if isinstance(groups, dict) else ())
        if isinstance(group, dict)
    ]
    inputs = [one for one in found if isinstance(one, dict)]
    a_batch = any(one.get("dynamic") and one.get("strategy") == "tensor" for one in inputs)
    fp8 = own.get("quant_method") == "fp8" and own.get("activation_scheme") == "dynamic"
    if a_batch or (fp8 and not own.get("weight_block_size")):
        raise ModelError(
            f"model {model.ref}: its activations are quantised with a scale for a whole batch, so "
            "that a row's numbers follow from its neighbours. Use weights that are not quantised "
            "so."
        )
    return bool(own)


def check_whole(model: ModelFiles, net: Any, found: Mapping[str, Collection[Any]]) -> None:
    """Refuse a model of which transformers has drawn a part at random, or left out the scales.

    Args:
        model: the model's files.
        net: as it was loaded.
        found: what transformers tells of loading: weights that its config asks for and no file
            holds, tensors that the config does not ask for, and those of another size.

    Raises:
        ModelError: there are missing weights, or scales without use, or other sizes, or whole
            numbers for weights.
    """
    missing, unexpected = found["missing_keys"], found["unexpected_keys"]
    if found["mismatched_keys"]:
        name, in_file, in_config = min(found["mismatched_keys"], key=lambda one: one[0])
        raise ModelError(
            f"model {model.ref}: its files hold {name} of size {list(in_file)}, but its "
            f"config.json expects {list(in_config)} (a resized vocabulary? another model's "
            "config?). Correct config.json, or fetch the model again."
        )
    if missing:
        raise ModelError(
            f"model {model.ref}: its files hold no {min(missing)} ({len(missing)} weights of its "
            "config are missing), which would be drawn at random. Fetch the model again, or mend "
            "its config.json (a head without weights of its own: tie_word_embeddings)."
        )
    if getattr(net, "hf_quantizer", None) is not None:
        return
    _check_formats(model)
    scales = [name for name in unexpected if _SCALE.search(name)]
    if scales:
        raise ModelError(
            f"model {model.ref}: its files hold {min(scales)} ({len(scales)} scales of quantised "
            "weights), and its config.json no quantization_config. Fetch the model again."
        )


def _check_formats(model: ModelFiles) -> None:
    """Refuse weights that are whole numbers: quantised, by a scale that nothing tells of.

    transformers would take the numbers themselves.

    Raises:
        ModelError: there are some.
    """
    for file in weight_files(model.folder):
        if file.suffix != ".safetensors":
            continue
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - no mapping
                if name.endswith(".weight"):
                    number_format = tensors.get_slice(name).get_dtype()
                    if number_format[0] in "IU":
                        raise ModelError(
                            f"model {model.ref}: {file.name} holds {name} as whole numbers "
                            f"({number_format}), and its config.json no quantization_config. "
                            "Fetch the model again, or use weights that are not quantised."
                        )


def describe_failure(error: Exception, folder: Path) -> str:
    """Say in one line why a library could not load what is in a folder."""
    if pointer := _find_pointer(folder):
        return f"{pointer} is a pointer of Git LFS, and not the file; fetch it with git lfs pull"
    lines = str(error).splitlines()
    if "Weights only load failed" in str(error):
        return "its pickled file holds more than weights: code that would run"
    if "Cannot use ``weights_only=True``" in str(error):
        return "its pickled file is a program (TorchScript), or of a form that may hold code (.tar)"
    if isinstance(error, EOFError):
        return "a pickled file ends before its end"
    return next((line.strip() for line in lines if "size mismatch" in line), first_line(error))


def _find_pointer(folder: Path) -> str | None:
    """Find a file of a model's folder that Git LFS has left its pointer in place of."""
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.stat().st_size < _POINTER_BYTES:
            with contextlib.suppress(OSError), path.open("rb") as file:
                if file.read(len(_POINTER)) == _POINTER:
                    return path.name
    return None
