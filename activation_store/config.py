"""What decides the target's own replies, and the content of an activation store."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from generators.config import Config

Codec = Literal["raw", "lossless"]


class CompleteConfig(Config):
    """How the target replies."""

    max_tokens: int = Field(default=48, ge=1)
    """Longest reply, in tokens."""
    unfinished: Literal["keep", "drop"] = "keep"
    """What happens to a reply that reaches `max_tokens`: `keep` flags it `unfinished`, `drop`
    counts and lists it."""
    temperature: float = Field(default=0.0, ge=0)
    """Sampling temperature; 0 is greedy."""
    batch_rows: int = Field(default=16, ge=1)
    """Conversations that are answered together; the unit of resuming."""
    compute_dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Number format in which the target runs."""
    seed: int = 0
    """Seed of sampling."""


class CaptureConfig(Config):
    """Which activations are kept, and how they are laid out."""

    layers: tuple[int, ...] = (14,)
    """Read layers: blocks, counted from 0, whose output residual stream is stored; -1 is the
    last."""
    compute_dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Number format in which the target runs."""
    store_dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    """Number format in which activations are stored."""
    max_tokens: int = Field(default=1024, ge=8)
    """Longest sequence, in tokens."""
    too_long: Literal["drop", "refuse"] = "drop"
    """What happens to a longer sequence: `drop` counts and lists it, `refuse` stops with its
    name."""
    batch_tokens: int = Field(default=2048, ge=1)
    """Most tokens of one forward pass, padding counted."""
    shard_rows: int = Field(default=8192, ge=256)
    """Rows (tokens) of one shard, the unit of work and of commit; a multiple of `chunk_rows`."""
    chunk_rows: int = Field(default=256, ge=16)
    """Rows of one inner chunk, the unit of a checksum."""
    codec: Codec = "raw"
    """How activations are packed: `raw` is read at the disk's speed, `lossless` is smaller and
    gives the same bits."""

    @field_validator("layers")
    @classmethod
    def _layers(cls, layers: tuple[int, ...]) -> tuple[int, ...]:
        if not layers or len(set(layers)) != len(layers) or min(layers) < -1:
            raise ValueError("expected distinct block numbers from 0 (or -1 for the last block)")
        return layers

    @model_validator(mode="after")
    def _whole_chunks(self) -> CaptureConfig:
        if self.shard_rows % self.chunk_rows:
            raise ValueError(
                f"shard_rows {self.shard_rows} is no multiple of chunk_rows {self.chunk_rows}"
            )
        return self


class DumpSection(CaptureConfig):
    """The YAML's section `dump`: a capture and the target that it is taken from."""

    model: str = "embedded"
    """The target: a Hugging Face id (`org/name` or `org/name@revision`), a local folder, a GGUF
    file, or `embedded` (SmolLM2-135M-Instruct, needs no network)."""
    adapter: str | None = None
    """Folder or id of a PEFT adapter that is part of the target; null for none."""
