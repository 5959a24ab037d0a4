"""Tiny decoders of several families, and what to ask them."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tiny
import torch

from activation_store.model_files.files import ModelFiles, resolve_model
from core.records.tables import Message
from decoder.binding import Binding
from decoder.config import DecoderConfig, LoraSettings
from decoder.model import Decoder
from decoder.reading import Reading
from decoder.sources.target_run import capture
from decoder.sources.token_choice import choose_tokens
from decoder.visible_tokens import count_withheld

CPU = torch.device("cpu")
FAMILIES = {
    "llama": tiny.CHATML,
    "llama3": tiny.LLAMA3,
    "qwen3": tiny.QWEN3,
    "gemma": tiny.GEMMA,
    "gemma3": tiny.GEMMA,
    "mistral": tiny.MISTRAL,
    "phi3": tiny.PHI3,
    "gpt_neox": tiny.CHATML,
}
"""Family to the template that its models come with."""
READ_LAYER = 2


def model(family: str = "llama", seed: int = 0, blocks: int = 4) -> ModelFiles:
    """Make a tiny model on disk, the same for all tests of one process."""
    return _model(family, seed, blocks)


@functools.cache
def _model(family: str, seed: int, blocks: int) -> ModelFiles:
    folder = Path(tempfile.mkdtemp(prefix="tiny-"))
    kind = "llama" if family == "llama3" else family
    tiny.save(folder, seed=seed, family=kind, template=FAMILIES[family], num_hidden_layers=blocks)
    return resolve_model(str(folder))


def make(
    family: str = "llama",
    *,
    nudge: float = 0.05,
    lora: LoraSettings | None = None,
    dtype: str = "float32",
    blocks: int = 4,
    **config: object,
) -> Decoder:
    """Make a decoder; `nudge` moves its adapter away from nothing, as training would."""
    files = model(family, blocks=blocks)
    made = Decoder.create(
        files,
        config=DecoderConfig.model_validate({"normalisation": "none", **config}),
        lora=lora or LoraSettings(rank=4),
        binding=Binding(
            read_layer=min(READ_LAYER, blocks - 1), target=files.digests(), model=files.ref
        ),
        dtype=dtype,
        device=CPU,
        seed=0,
    )
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, values in made.net.named_parameters():
            if "lora_B" in name:
                values += nudge * torch.randn(values.shape, generator=generator)
    return made


def capture_reading(
    decoder: Decoder, messages: Sequence[Message], *, view: str, layer: int | None = None
) -> Reading:
    """Return what `decoder` is shown of a conversation of that view."""
    layers = decoder.select_layers(layer)
    (run,) = capture(decoder, [messages], layers.layers)
    withheld = count_withheld(view, run.tokens.withheld, masking=decoder.config.masking)
    chosen = choose_tokens("visible", run.tokens, run.encoded, withheld=withheld)
    return run.reading(layers, chosen)


def reading(
    n: int,
    first_position: int = 0,
    *,
    seed: int = 0,
    vectors: bool = True,
    layers: tuple[int, ...] = (),
) -> Reading:
    """Random activations of the size that a tiny model's have."""
    size = n * max(1, len(layers))
    values = np.random.default_rng([seed, n]).normal(size=(size, 32)).astype(np.float32)
    return Reading(values if vectors else None, n, first_position, layers)
