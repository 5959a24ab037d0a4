"""The untrained decoder of the benchmarks of training, answering and steering."""

from __future__ import annotations

from activation_store.model_files.files import resolve_model
from activation_store.target.load import pick_device
from core.runtime import Runtime
from decoder.binding import Binding
from decoder.config import DecoderConfig, LoraSettings
from decoder.model import Decoder


def untrained_decoder(ref: str, layer: int = 14) -> Decoder:
    """Make a decoder in float32 of the model `ref` that reads block `layer`."""
    model = resolve_model(ref)
    return Decoder.create(
        model,
        config=DecoderConfig(normalisation="none"),
        lora=LoraSettings(),
        binding=Binding(read_layer=layer, target=model.digests(), model=model.ref),
        dtype="float32",
        device=pick_device(Runtime()),
        seed=0,
    )
