"""What decides the content of an activation store, and how it is laid out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from activation_store.target.number_format import ComputeConfig
from activation_store.tokens.config import TemplateConfig
from core.records.tables import Split

Codec = Literal["raw", "lossless"]


def _check_layer(layer: float) -> float:
    if layer < -1 or (isinstance(layer, float) and not 0 < layer < 1):
        raise ValueError(
            f"got {layer}; expected a block number from 0, -1 for the last block, or a relative "
            "depth between 0 and 1"
        )
    return layer


Layer = Annotated[int | float, AfterValidator(_check_layer)]
"""A block of a model: its number from 0, -1 for the last, or a relative depth between 0 and 1."""


def known_by_number(layers: Iterable[Layer]) -> bool:
    """Whether all are named by numbers that need no model to be told apart."""
    return all(isinstance(layer, int) and layer >= 0 for layer in layers)


_CHUNK_ROWS, _CHUNK_BYTES = 256, 256 << 10
_SHARD_ROWS, _SHARD_CHUNKS = 8192, 32


class CaptureConfig(ComputeConfig):
    """Which activations are stored, and how they are laid out."""

    layers: tuple[Layer, ...] = (0.5,)
    """Read layers: the blocks, counted from 0, whose output residual stream is stored. -1 is the
    last block. A fraction is a relative depth: 0.5 is the block after which half of the blocks have
    run (15 of 32, 14 of 30)."""
    store_dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    """Number format of the stored activations."""
    max_tokens: int = Field(default=1024, ge=8)
    """Longest sequence, in tokens."""
    too_long: Literal["drop", "refuse"] = "drop"
    """What happens to a longer sequence: `drop` leaves it out, counts and lists it; `refuse` stops
    the dump and names it."""
    swapped: tuple[Split, ...] = ("test", "test_ood", "test_seen")
    """Splits whose masked rows are also dumped with another control of their kind before the same
    visible text (`swapped`), for the hidden gain; empty for none."""
    batch_tokens: int = Field(default=2048, ge=1)
    """Most tokens of one forward pass, padding included. It changes results only by rounding and is
    not part of the cache key."""
    shard_rows: int | None = Field(default=None, ge=256, le=2**24)
    """Rows (tokens) of one shard, the unit of work and of commit; a multiple of `chunk_rows`. Null
    takes 8,192, or more if the longest sequence or 32 chunks need it."""
    chunk_rows: int | None = Field(default=None, ge=16, le=2**20)
    """Rows of one inner chunk, the unit of a checksum. Null takes 256, doubled until a layer's
    chunk exceeds 256 KiB, so that narrow targets have little overhead per chunk."""
    codec: Codec = "raw"
    """How activations are packed: `raw` is read at the speed of the disk; `lossless` is smaller and
    gives the same bits."""

    @field_validator("layers")
    @classmethod
    def _layers(cls, layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
        if not layers or len(set(layers)) != len(layers):
            raise ValueError(f"got {list(layers)}; expected at least one layer, and each once")
        return layers

    @model_validator(mode="after")
    def _whole_chunks(self) -> CaptureConfig:
        chunk_rows = self.chunk_rows or _CHUNK_ROWS
        if self.shard_rows is not None and self.shard_rows % chunk_rows:
            raise ValueError(
                f"shard_rows {self.shard_rows} is not a multiple of chunk_rows {chunk_rows}"
            )
        return self

    def shard_and_chunk_rows(self, d_model: int, longest: int = 0) -> tuple[int, int]:
        """Return `shard_rows` and `chunk_rows` of a store.

        Args:
            d_model: width of its activations.
            longest: tokens of its longest sequence.
        """
        chunk_rows, least = self.chunk_rows, max(_SHARD_ROWS, longest)
        if chunk_rows is None:
            chunk_rows = _CHUNK_ROWS
            row_bytes = max(1, d_model) * (4 if self.store_dtype == "float32" else 2)
            while chunk_rows * row_bytes <= _CHUNK_BYTES and not (self.shard_rows or 0) % (
                2 * chunk_rows
            ):
                chunk_rows *= 2
            least = max(least, _SHARD_CHUNKS * chunk_rows)
        return self.shard_rows or -(-least // chunk_rows) * chunk_rows, chunk_rows


class DumpSection(CaptureConfig, TemplateConfig):
    """The YAML's section `dump`: the target, and which of its activations are stored."""

    model: str = "embedded"
    """The target: a Hugging Face id (`org/name` or `org/name@revision`), a local folder, a GGUF
    file, or `embedded` (SmolLM2-135M-Instruct, needs no network)."""
    adapter: str | None = None
    """Folder or id of a PEFT adapter that is part of the target; null for none. Its own tokenizer
    and chat template are used if it has them."""
    store: str | None = None
    """REF or folder of a finished store that is used instead of a dump; it must come from this
    target and contain `layers`. Its root digest is part of the cache key. Null runs a dump."""
    trust_remote_code: bool = False
    """Whether Python code in the target's folder may run, for models that transformers does not
    implement. There is no interactive prompt for it."""

    @property
    def template(self) -> TemplateConfig:
        """How the target's chat template writes conversations."""
        return TemplateConfig(template_args=self.template_args, system_role=self.system_role)
