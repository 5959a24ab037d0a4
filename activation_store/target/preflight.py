"""Whether a model can be loaded: found from its configs and the headers of its files alone."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM
from transformers.quantizers.auto import get_hf_quantizer

from activation_store.model_files.files import ModelFiles
from activation_store.model_files.gguf import is_converted, read_header
from activation_store.model_files.quiet import quiet_libraries
from activation_store.target.capture import Capture
from activation_store.target.load import load_config, load_model, load_tokenizer, refusal
from activation_store.target.model_checks import check_quantization
from core.errors import ModelError, first_line
from core.runtime import Runtime


def check_loadable(model: ModelFiles, runtime: Runtime, *, here: bool) -> Any:
    """Load a model as a step does, but for its weights: their names and sizes are compared.

    Of a GGUF file that was not converted yet, a plan reads the header alone.

    Args:
        model: the model's files.
        runtime: how it is to be loaded.
        here: whether it is this machine that is to run it.

    Returns:
        The network on the device `meta`, without its adapter; None for quantised weights, whose
        form is known only once they are loaded.

    Raises:
        ModelError: transformers or peft cannot load it, or it has no chat template.
    """
    if model.is_gguf and not here and not is_converted(model.source):
        return _of_header(model)
    load_tokenizer(model)
    config = load_config(model)
    if not check_quantization(model, config):
        alone = runtime.model_copy(update={"spread": False})
        meta = torch.device("meta")
        net: Any = load_model(model, dtype="float32", device=meta, merged=False, runtime=alone)
        net = net if model.adapter is None else net.unload()
        _check_output(net)
        return net
    placed = "auto" if runtime.spread else None
    with quiet_libraries():
        try:
            get_hf_quantizer(copy.deepcopy(config), None, placed, True, {})  # type: ignore[no-untyped-call]
        except Exception as error:  # what a quantiser misses, each says in its own way
            if here or isinstance(error, ImportError):
                what = "its quantised weights cannot be loaded here"
                raise refusal(model, what, error) from error
    return None


def _check_output(net: Any) -> None:
    """Check the shape of what the first block writes.

    Raises:
        ModelError: it is not one vector a token.
    """
    try:
        Capture(net, [0])([np.arange(4)])
    except ModelError:
        raise
    except Exception:  # some networks run on real numbers alone; the dump checks them
        return


def _of_header(model: ModelFiles) -> Any:
    """Make the network that the header of a GGUF file describes, on the device `meta`."""
    config, has_template = read_header(model.source)
    if not has_template and model.adapter is None:
        raise ModelError(
            f"model {model.ref}: its tokenizer has no chat template; use an instruct model."
        )
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    except Exception as error:  # a config without a causal language model fails in any way
        raise ModelError(
            f"model {model.ref}: transformers cannot load it ({first_line(error)})."
        ) from error
