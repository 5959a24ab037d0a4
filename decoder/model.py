"""The decoder: a copy of the target with a LoRA adapter, bound to what it was trained to read."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from activation_store.model_files.files import ModelFiles, public_name
from activation_store.model_files.quiet import quiet_libraries
from activation_store.target.adapter import load_adapter
from activation_store.target.load import (
    Shape,
    blocks,
    load_model,
    load_tokenizer,
    pick_device,
    rope_switch,
    shape_of,
)
from activation_store.target.number_format import resolve_dtype
from core.errors import ConfigError, ModelError, StoreError, first_line
from core.files import write_json
from core.runtime import Runtime
from decoder.adapters import multiply_in_base_format, tidy_adapter_folder, use_adapter
from decoder.binding import SCHEMA, SIDECAR, Binding, check_target, read_sidecar
from decoder.config import DecoderConfig, LoraSettings
from decoder.forward import check_cacheable
from decoder.injection import How, Injection
from decoder.normalisation import ActivationStatistics, Normaliser
from decoder.packed import can_pack
from decoder.question_prompt import DecoderPrompt
from decoder.visible_tokens import ReadLayers, block_numbers, select_layers


class Decoder:
    """Base model, adapter and injection, used alike by training, asking and evaluation.

    Attributes:
        net: peft model in eval mode; its base is the target.
        prompt: builds token ids.
        config: how activations enter.
        binding: what it reads.
        can_pack: whether a row can be one packed sequence (decoder/packed.py).
        adapter: name of the adapter that makes the network a decoder.
    """

    def __init__(self, net: Any, tokenizer: Any, config: DecoderConfig, binding: Binding) -> None:
        self.net = net
        multiply_in_base_format(net)
        self.adapter: str = net.active_adapter
        self.tokenizer = tokenizer
        base = net.get_base_model()
        self.prompt = DecoderPrompt(tokenizer, config, most_positions=rope_switch(base))
        self.config = config
        self.binding = binding
        check_cacheable(base, binding.model)
        shape = shape_of(base.config, binding.model)
        self.can_pack = can_pack(base)
        place = shape.layer(config.write_layer, "decoder.write_layer")
        self._injection = Injection(blocks(base)[place], config.injection)
        self._normalisers: dict[str, Normaliser] = {}
        self._asked_layer: int | None = None

    @property
    def injection(self) -> Injection:
        """What puts activations in, normalised as the active adapter learned to read them.

        Raises:
            RuntimeError: the decoder normalises, and `use_statistics` was not called.
        """
        normaliser = self._normalisers.get(self.net.active_adapter)
        if normaliser is None and self.config.normalisation != "none":
            raise RuntimeError(
                f"normalisation {self.config.normalisation} needs statistics of training tokens: "
                "call use_statistics first"
            )
        return replace(self._injection, normaliser=normaliser)

    @property
    def normaliser(self) -> Normaliser | None:
        """What normalises activations for this decoder's own adapter; None where nothing does."""
        return self._normalisers.get(self.adapter)

    def injection_at(self, block: int, how: How) -> Injection:
        """Return what puts activations in at the output of any block, as they are.

        Args:
            block: counted from 0.
            how: whether they replace what is there, or are added to it.

        Raises:
            ModelError: the model has no such block.
        """
        base = self.net.get_base_model()
        place = self.shape.layer(block, "tasks.write_layers")
        return Injection(blocks(base)[place], how)

    @property
    def write_block(self) -> nn.Module:
        """The block at whose output activations enter."""
        return self._injection.block

    def recompute_blocks(self) -> None:
        """Let training compute each block again in the backward pass (gradient checkpointing).

        What activations are put in by stands outside of what is computed again.

        Raises:
            ConfigError: rows are not packed, or transformers cannot do it block by block.
        """
        base = self.net.get_base_model()
        if not self.can_pack or not isinstance(self.write_block, GradientCheckpointingLayer):
            raise ConfigError(
                f"runtime.checkpointing: got true for model {self.binding.model}, whose rows "
                "share the keys and values of a prefix, or whose blocks transformers cannot "
                "compute again. Set it to false, and train.micro_batch_tokens lower."
            )
        base.activation_checkpointing_enable({"use_reentrant": False})

    @property
    def shape(self) -> Shape:
        """Blocks, width and vocabulary of its target."""
        return shape_of(self.net.get_base_model().config, self.binding.model)

    @property
    def layers(self) -> tuple[int, ...]:
        """Blocks that it reads, counted from 0."""
        return block_numbers(self.config, self.binding.read_layer)

    @property
    def device(self) -> torch.device:
        """The device that holds the decoder."""
        device: torch.device = next(self.net.parameters()).device
        return device

    @property
    def dtype(self) -> str:
        """Name of the number format in which the base runs."""
        weights: torch.Tensor = self.net.get_input_embeddings().weight
        return str(weights.dtype).removeprefix("torch.")

    @classmethod
    def create(
        cls,
        model: ModelFiles,
        *,
        config: DecoderConfig,
        lora: LoraSettings,
        binding: Binding,
        dtype: str,
        device: torch.device,
        seed: int,
        runtime: Runtime | None = None,
    ) -> Decoder:
        """Create a new decoder, whose adapter changes nothing yet.

        Args:
            model: the target's files.
            config: how activations enter.
            lora: shape of the adapter.
            binding: what it is to read.
            dtype: number format of the weights; the adapter's stay float32.
            device: where it is created.
            seed: of the adapter's weights.
            runtime: how the base is loaded: its attention, and whether it is spread.

        Raises:
            ModelError: the model cannot be loaded or handled.
        """
        base: Any = load_model(model, dtype=dtype, device=device, runtime=runtime)
        check_cacheable(base, binding.model)  # before peft has its own words for it
        torch.manual_seed(seed)
        net = add_lora(base, lora)
        return cls(net.eval(), load_tokenizer(model), config, binding)

    @classmethod
    def load(cls, folder: Path, model: ModelFiles, compute_dtype: str, runtime: Runtime) -> Decoder:
        """Load a trained decoder from the folder that `save` wrote.

        Args:
            folder: of the decoder.
            model: its target.
            compute_dtype: number format, or `auto`.
            runtime: its device.

        Raises:
            ModelError: there is no decoder in `folder`.
            StoreError: `model` is not the target that it was trained to read.
        """
        config, binding = read_sidecar(folder)
        check_target(binding, model)
        dtype, device = resolve_dtype(compute_dtype, runtime), pick_device(runtime)
        base = load_model(model, dtype=dtype, device=device, runtime=runtime)
        net = load_adapter(base, folder)
        if not runtime.spread:
            net = net.to(device)
        net = net.eval().requires_grad_(False)
        decoder = cls(net, load_tokenizer(model), config, binding)
        if config.normalisation != "none":
            decoder.use_statistics(ActivationStatistics.load(folder))
        return decoder

    def use_statistics(self, statistics: ActivationStatistics, adapter: str | None = None) -> None:
        """Normalise what is injected by statistics of training tokens.

        Args:
            statistics: of the layers that the decoder reads.
            adapter: the adapter that reads them so; None for the active one.
        """
        self._normalisers[adapter or self.net.active_adapter] = Normaliser(
            self.config.normalisation, statistics, self.layers, self.device
        )

    def save(self, folder: Path) -> None:
        """Write an ordinary peft adapter, and one JSON of ours beside it.

        Neither names a folder of this machine; a local model goes by its folder's own name.
        """
        binding, name = self.binding, public_name(self.binding.model)
        for adapter in self.net.peft_config.values():
            adapter.base_model_name_or_path = name
        # the adapter holds no embeddings; peft would look for the base's to compare
        self.net.save_pretrained(folder, save_embedding_layers=False)
        tidy_adapter_folder(folder)
        if normaliser := self._normalisers.get(self.net.active_adapter):
            normaliser.statistics.save(folder)
        write_json(
            folder / SIDECAR,
            {
                "schema": SCHEMA,
                "decoder": self.config.model_dump(mode="json"),
                "read_layer": binding.read_layer,
                "target": binding.target,
                "model": name,
                "adapter": public_name(binding.adapter) if binding.adapter else None,
                **({"template": binding.template} if binding.template else {}),
            },
        )

    def select_layers(self, layer: int | None = None) -> ReadLayers:
        """Select the layers of one reading; for None the first, or that of `ask_layer`.

        Raises:
            ConfigError: the decoder does not read `layer`.
        """
        chosen = self._asked_layer if layer is None else layer
        return select_layers(self.config, self.binding.read_layer, chosen)

    def ask_layer(self, layer: float | None, field: str = "") -> None:
        """Take another of several sampled layers for the one that is read by default.

        Args:
            layer: a block, named as in dump.layers; None for the first again.
            field: the setting that names it, for errors.

        Raises:
            ModelError: the target has no such block.
            ConfigError: the decoder does not read it.
        """
        block = None if layer is None else self.shape.layer(layer, field)
        self._asked_layer = None
        self.select_layers(block)
        self._asked_layer = block

    def add_adapter(self, name: str, folder: Path) -> None:
        """Load another decoder of the same target beside this one, for `with_adapter(name)`.

        Raises:
            ModelError: there is no decoder in `folder`, or none that fits.
            StoreError: it reads another target.
        """
        config, binding = read_sidecar(folder)
        if config.normalisation != self.config.normalisation:
            raise ModelError(
                f"decoder {folder}: trained with normalisation {config.normalisation}, "
                f"expected {self.config.normalisation} as in the other decoder. Train both "
                "with the same."
            )
        if binding.target != self.binding.target:
            raise StoreError(
                f"decoder {folder}: reads target {binding.model}, expected "
                f"{self.binding.model} as the other decoder does."
            )
        with quiet_libraries():
            try:
                self.net.load_adapter(str(folder), name)
            except (OSError, ValueError, RuntimeError) as error:
                raise ModelError(
                    f"adapter {folder}: peft cannot load it into this model ({first_line(error)})."
                ) from error
        multiply_in_base_format(self.net)
        if config.normalisation != "none":
            self.use_statistics(ActivationStatistics.load(folder), name)

    def with_adapter(self, name: str) -> contextlib.AbstractContextManager[None]:
        """Use the adapter that was added under `name` while the context is open."""
        return use_adapter(self.net, name)

    def without_adapter(self) -> contextlib.AbstractContextManager[None]:
        """Disable the adapter while the context is open.

        The network is then the target itself, and the decoder as it was before training.
        """
        return use_adapter(self.net, None)


def check_base(net: Any, model: ModelFiles, *, config: DecoderConfig, lora: LoraSettings) -> None:
    """Refuse a base of which no decoder can be made.

    Args:
        net: the base, on any device, `meta` included; its blocks are changed.
        model: its files.
        config: how activations would enter.
        lora: shape of the adapter.

    Raises:
        ModelError: its blocks are not found or keep something else of a prefix, or it lacks the
            block or the layers that `config` and `lora` name.
    """
    check_cacheable(net, model.ref)
    shape = shape_of(net.config, model.ref)
    shape.layer(config.write_layer, "decoder.write_layer")
    blocks(net)
    add_lora(net, lora)


def add_lora(base: Any, lora: LoraSettings) -> Any:
    """Put an adapter that changes nothing yet on a network; return the peft model.

    Raises:
        ModelError: peft cannot, as where a layer that `lora` names is missing.
    """
    from peft import LoraConfig, get_peft_model

    targets = lora.targets if isinstance(lora.targets, str) else list(lora.targets)
    adapter = LoraConfig(
        r=lora.rank,
        lora_alpha=cast(int, lora.alpha),  # peft takes any number
        lora_dropout=lora.dropout,
        target_modules=targets,
        task_type="CAUSAL_LM",
    )
    with quiet_libraries():
        try:
            on_meta = next(base.parameters()).is_meta
            return get_peft_model(base, adapter, low_cpu_mem_usage=on_meta)
        except ValueError as error:
            raise ModelError(f"train.lora: {first_line(error)}") from error
