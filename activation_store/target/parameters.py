"""The number of a model's parameters, without its weights."""

from __future__ import annotations

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from activation_store.model_files.files import ModelFiles
from activation_store.model_files.quiet import quiet_libraries
from activation_store.target.load import model_shape


def count_parameters(model: ModelFiles) -> int:
    """Count the parameters of a model from its config, tied ones once.

    Raises:
        ModelError: the config is no causal language model's, or needs code of the folder.
    """
    model_shape(model)  # which refuses a config that cannot be used, in words
    with quiet_libraries(), torch.device("meta"):
        config = AutoConfig.from_pretrained(model.folder, trust_remote_code=model.trust_remote_code)
        net = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    return sum(weights.numel() for weights in net.parameters())
