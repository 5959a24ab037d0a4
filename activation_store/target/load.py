"""Loading the target, finding its blocks, and choosing where it runs."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakSet

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from activation_store.model_files.files import ModelFiles, read_model_json
from activation_store.model_files.quiet import quiet_libraries
from activation_store.target.adapter import add_adapter
from activation_store.target.first_blocks import cut_behind
from activation_store.target.model_checks import (
    check_quantization,
    check_whole,
    describe_failure,
)
from activation_store.tokens.template import TEMPLATE_SETTINGS
from activation_store.tokens.tokens import EMBEDDED_TOKENS
from core.errors import ConfigError, ModelError, first_line
from core.runtime import Runtime

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """The numbers of a model that its store needs.

    Attributes:
        ref: the model's reference, for messages.
        n_blocks: transformer blocks.
        d_model: width of the residual stream.
        max_positions: longest sequence that the model was made for, in tokens.
        vocabulary: rows of its embedding.
    """

    ref: str
    n_blocks: int
    d_model: int
    max_positions: int
    vocabulary: int

    def layer(self, layer: float, field: str) -> int:
        """Return `layer` counted from 0, where -1 is the last.

        A fraction is a relative depth: 0.5 is the block behind which half of the blocks are done,
        15 of 32 and 14 of 30.

        Raises:
            ModelError: the model has no such block; `field` is the setting to change.
        """
        if 0 < layer < 1:
            return max(0, round(layer * self.n_blocks) - 1)
        if not -1 <= layer < self.n_blocks:
            raise ModelError(
                f"model {self.ref}: it has blocks 0 to {self.n_blocks - 1}, got {layer}. "
                f"Change {field}."
            )
        return int(layer) % self.n_blocks


def model_shape(model: ModelFiles) -> Shape:
    """Read a model's shape from its config, under whatever names its family has for it.

    Raises:
        ModelError: the config is no causal language model's, or needs code of the folder.
    """
    config = load_config(model)
    try:
        return shape_of(config, model.ref)
    except AttributeError as error:
        raise ModelError(
            f"model {model.ref}: its config.json is not one that transformers can use "
            f"({first_line(error)})."
        ) from error


def shape_of(config: Any, ref: str) -> Shape:
    """Return the shape in a transformers config."""
    own = config.get_text_config()
    longest = getattr(own, "max_position_embeddings", None)  # -1: without end
    return Shape(
        ref=ref,
        n_blocks=own.num_hidden_layers,
        d_model=own.hidden_size,
        max_positions=longest if longest and longest > 0 else sys.maxsize,
        vocabulary=own.vocab_size,
    )


def load_config(model: ModelFiles) -> Any:
    """Read a model's config.

    Raises:
        ModelError: transformers cannot, or it needs code of the folder.
    """
    with quiet_libraries():
        try:
            return AutoConfig.from_pretrained(
                model.folder, trust_remote_code=model.trust_remote_code
            )
        except Exception as error:  # a folder's config fails in any way, its own code included
            what = "its config.json is not one that transformers can use"
            raise refusal(model, what, error) from error


def refusal(model: ModelFiles, what: str, error: Exception) -> ModelError:
    """Return the error for a model that cannot be loaded, with the next step where one is known."""
    said, advice = describe_failure(error, model.folder), ""
    if "trust_remote_code" in str(error):
        said = "it needs Python code of its folder"
        advice = " If you trust that code, set dump.trust_remote_code."
    elif said.startswith("Unrecognized configuration class"):
        said = "transformers has no causal language model of this type"
        advice = " Use one that reads and continues text alone."
    elif said.startswith("Couldn't instantiate the backend tokenizer"):
        said = "no file that it could be made of"
        advice = " Fetch the folder whole, with its tokenizer.json."
    elif isinstance(error, ImportError):
        advice = " Install what it names, or use a model that does without."
    return ModelError(f"model {model.ref}: {what} ({said}).{advice}")


def pick_device(runtime: Runtime) -> torch.device:
    """Return the device that `runtime.device` names.

    Raises:
        ConfigError: it is not a device, or not here.
    """
    name = runtime.device
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(
            f"runtime.device: {name!r} is not a device; expected auto, cpu, cuda, cuda:N or mps."
        ) from error
    here = {
        "cpu": 1,
        "cuda": torch.cuda.device_count(),
        "mps": int(torch.backends.mps.is_available()),
    }.get(device.type, 0)
    if (device.index or 0) >= here:
        raise ConfigError(
            f"runtime.device: {name!r} is not on this machine; expected auto or one that is here."
        )
    return device


def use_threads(runtime: Runtime) -> None:
    """Give torch the number of CPU threads that `runtime` names."""
    if runtime.threads is not None:
        torch.set_num_threads(runtime.threads)


def load_tokenizer(model: ModelFiles) -> Any:
    """Load the model's tokenizer; its adapter's, where that has its own.

    Raises:
        ModelError: it has no chat template, no fast tokenizer with character offsets, or more
            tokens than the model.
    """
    model.check_unchanged()
    tokenizer = _tokenizer_in(model, model.tokenizer_folder)
    if not tokenizer.is_fast:
        raise ModelError(f"model {model.ref}: its tokenizer gives no character offsets (not fast).")
    if (apart := _template_apart(model, has_own=tokenizer.chat_template is not None)) is not None:
        tokenizer.chat_template = apart
    if tokenizer.chat_template is None and model.tokenizer_folder != model.folder:
        raise ModelError(
            f"adapter {model.adapter}: its tokenizer has no chat template. Copy the one that it "
            "was trained with beside it (chat_template.jinja), or take its tokenizer away, so that "
            "the model's is used."
        )
    if tokenizer.chat_template is None:
        raise ModelError(
            f"model {model.ref}: its tokenizer has no chat template; use an instruct model."
        )
    if model.tokenizer_folder != model.folder:
        _check_vocabulary(model, tokenizer)
    setattr(tokenizer, TEMPLATE_SETTINGS, model.template)
    setattr(tokenizer, EMBEDDED_TOKENS, model_shape(model).vocabulary)
    return tokenizer


def _template_apart(model: ModelFiles, *, has_own: bool) -> str | None:
    """Return the chat template of an adapter without a tokenizer, or of a model's processor.

    Args:
        model: the model.
        has_own: whether its tokenizer has a template.
    """
    alone = model.adapter if model.tokenizer_folder != model.adapter else None
    if alone is not None and (alone / "chat_template.jinja").is_file():
        return (alone / "chat_template.jinja").read_text("utf-8", "replace")
    if has_own:
        return None
    found = read_model_json(model.tokenizer_folder / "chat_template.json").get("chat_template")
    return found if isinstance(found, str) else None


def _tokenizer_in(model: ModelFiles, folder: Path) -> Any:
    with quiet_libraries():
        try:
            return AutoTokenizer.from_pretrained(folder, trust_remote_code=model.trust_remote_code)
        except Exception as error:  # the Rust library raises a bare Exception for a broken file
            raise refusal(model, f"no usable tokenizer in {folder}", error) from error


def _check_vocabulary(model: ModelFiles, tokenizer: Any) -> None:
    """Compare the tokenizer of an adapter with the embedding of its base.

    Raises:
        ModelError: the adapter's tokenizer has tokens that the base has no embedding for.
    """
    rows = model_shape(model).vocabulary
    # some models have tokens without an embedding of their own; those are no fault of the adapter
    if len(tokenizer) > max(rows, len(_tokenizer_in(model, model.folder))):
        raise ModelError(
            f"adapter {model.adapter}: its tokenizer has {len(tokenizer)} tokens, and model "
            f"{model.ref} has {rows}. Merge the adapter into a model with the resized vocabulary, "
            "and use that."
        )


_LOADED: WeakSet[nn.Module] = WeakSet()


def load_model(
    model: ModelFiles,
    *,
    dtype: str,
    device: torch.device,
    merged: bool = True,
    runtime: Runtime | None = None,
    first_blocks: int | None = None,
    tensor_parallel: bool = False,
) -> nn.Module:
    """Load the target in eval mode on `device`, without gradients.

    Args:
        model: the target's files; they are compared with their digests before and after.
        dtype: number format in which it runs.
        device: where it runs; on `meta` no weights are read.
        merged: whether its adapter (if any) is merged into the weights, or works beside them.
        runtime: its attention, and whether it is spread over all GPUs, `device` being the first.
        first_blocks: blocks that are needed; the others are left on the disk, where the model can
            be cut: one without an adapter, quantised weights or code of its own, whose first
            blocks do not depend on how many there are. None loads all.
        tensor_parallel: whether this process's share of every weight is loaded, on `device`, and
            the others of its process group hold the rest.

    Raises:
        ModelError: transformers cannot load it, or peft its adapter, or its files changed.
    """
    model.check_unchanged()
    config = load_config(model)
    quantised = check_quantization(model, config)
    placement = _placement(device, runtime, quantised=quantised, tensor_parallel=tensor_parallel)
    if not quantised and model.adapter is None and not model.trust_remote_code:
        short = cut_behind(config, first_blocks)
        placement |= {} if short is None else {"config": short}
    if device.type == "cuda" and dtype == "float32":
        torch.backends.cuda.matmul.fp32_precision = "tf32"
    with quiet_libraries():
        try:
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                model.folder,
                dtype=DTYPES[dtype],
                weights_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # refused below, with both sizes
                trust_remote_code=model.trust_remote_code,
                **placement,
            )
        except Exception as error:  # quantised, multimodal and broken models fail in any way
            raise refusal(model, "transformers cannot load it", error) from error
        net, found = loaded
        check_whole(model, net, found)
        if model.adapter is not None:
            net = add_adapter(net, model, merged=merged)
        try:
            if not tensor_parallel and "device_map" not in placement:
                net = net.to(device)
            net = net.eval().requires_grad_(False)
        except (ValueError, NotImplementedError) as error:  # some quantised weights do not move
            raise refusal(model, f"it cannot run on {device}", error) from error
    model.check_unchanged()
    whole: nn.Module = net
    _multiply_once(whole)
    _LOADED.add(whole)
    return whole


def any_loaded() -> bool:
    """Return whether a model that was loaded in this process is still in memory."""
    return len(_LOADED) > 0


def _multiply_once(net: Any) -> None:
    """Let the language head multiply the last tokens of several rows in one product.

    `logits_to_keep` hands it a slice of B rows that is not contiguous. For frozen weights
    torch.matmul makes B products of that, and in bfloat16 on a CPU copies the head's weight for
    each.
    """
    head = net.get_output_embeddings()
    if head is not None:
        head.register_forward_pre_hook(lambda _, args: (args[0].contiguous(), *args[1:]))


def _placement(
    device: torch.device, runtime: Runtime | None, *, quantised: bool, tensor_parallel: bool
) -> dict[str, Any]:
    """Return how transformers is to load a model, where that is not as a whole and then moved."""
    found: dict[str, Any] = {}
    if device.type == "meta" or (quantised and device.type != "cpu"):
        # kernels are chosen by the device while loading, and some quantised weights do not move
        found["device_map"] = {"": device}
    if tensor_parallel:
        from transformers.distributed.configuration_utils import DistributedConfig

        found["distributed_config"] = DistributedConfig(tp_plan="auto")
    if runtime is None:
        return found
    if runtime.attn_implementation:
        found["attn_implementation"] = runtime.attn_implementation
    if runtime.spread and not tensor_parallel:
        found["device_map"] = "auto"
    return found


def rope_switch(net: Any) -> int | None:
    """Return the length past which a model encodes positions otherwise; None where it does not."""
    config = net.config.get_text_config()
    found: list[int] = []
    settings = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None)
    kinds = [settings, *settings.values()] if isinstance(settings, dict) else []
    for own in kinds:  # of all layers, or by kind of layer
        kind = own.get("rope_type", own.get("type")) if isinstance(own, dict) else None
        if kind in ("longrope", "dynamic"):
            switch = own.get("original_max_position_embeddings") or getattr(
                config, "original_max_position_embeddings", None
            )
            found.append(switch or config.max_position_embeddings)
    return min(found, default=None)


def forget_lengths(net: nn.Module) -> None:
    """Let a model with `dynamic` positions encode the next text as it would its first.

    Past a length these follow the longest text that it has seen, and not its own.
    """
    ending = "max_seq_len_cached"
    for module in net.modules():
        for name in [own for own in vars(module) if own.endswith(ending)]:
            kind = name.removesuffix(ending)  # of layers, where each has positions of its own
            first = getattr(module, f"{kind}original_inv_freq", None)
            if isinstance(first, torch.Tensor):
                place = getattr(module, f"{kind}inv_freq").device
                setattr(module, f"{kind}inv_freq", first.to(place, copy=True))
            setattr(module, name, module.original_max_seq_len)


def blocks(net: nn.Module) -> nn.ModuleList:
    """Return the transformer blocks of a causal language model, in order.

    Raises:
        ModelError: none are found where any family keeps them.
    """
    inner = getattr(net, "base_model", net)
    config: Any = net.config
    n_blocks = shape_of(config, "").n_blocks
    places = ("layers", "h", "blocks")
    get_decoder: Any = getattr(net, "get_decoder", None)
    candidates: list[Any] = [None if get_decoder is None else get_decoder(), inner]
    candidates += [getattr(inner, name, None) for name in ("model", "transformer", "gpt_neox")]
    for module in candidates:
        for place in places:
            found = getattr(module, place, None)
            if isinstance(found, nn.ModuleList) and len(found) == n_blocks:
                return found
    raise ModelError(
        f"model of type {config.model_type}: its blocks were not found; "
        "this architecture is not supported."
    )
