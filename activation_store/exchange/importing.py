"""Import of vectors that another program captured, as a store like any other.

What they are of is declared, not computed: the target, whose digests bind the store as they would
after a dump, and the layer. There is no canary of an imported store; `canary.json` says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow.parquet as pq
import torch
from pydantic import Field

from activation_store.layout.arrays import CANARY_FILE, PHYSICAL, layer_array
from activation_store.layout.checksummed_json import write_checksummed_json
from activation_store.layout.config import CaptureConfig, Codec
from activation_store.layout.plan import Plan, make_plan, write_plan
from activation_store.layout.root_record import write_root
from activation_store.target.host_copy import to_stored
from activation_store.target.token_table import TokenTable
from activation_store.target.tokens import Tokens
from activation_store.write.committer import ShardCommitter
from core.canonical import digest
from core.config import Config
from core.errors import DataError
from core.files import new_folder, sha256_file

Dtype = Literal["float32", "bfloat16", "float16"]
_COLUMNS = {"example_id", "row_start", "n_tokens"}


class VectorImport(Config):
    """How vectors from elsewhere are laid out here."""

    layer: int = Field(ge=0)
    """Block, counted from 0, whose output they are."""
    store_dtype: Dtype | None = None
    """Number format in which they are stored; null for their own."""
    codec: Codec = "raw"
    """How they are packed."""
    shard_rows: int | None = Field(default=None, ge=256)
    """Rows (tokens) of one shard; null as in `dump.shard_rows`."""


@dataclass(frozen=True, slots=True)
class VectorSource:
    """Vectors outside of any store.

    Attributes:
        rows: tokens by example id; ids and segments are 0 where the source does not say.
        read: the vectors [T, D] of an example, in the source's own type.
        d_model: their width D.
        dtype: their number format.
        digest: of the files that they come from.
    """

    rows: TokenTable
    read: Callable[[str], Any]
    d_model: int
    dtype: Dtype
    digest: str


def open_safetensors(folder: Path) -> VectorSource:
    """A folder of .safetensors files, one tensor [T, D] an example, named by its id.

    Tokens, segments and withheld tokens come from `examples.parquet` where it is there, as an
    export writes it.

    Raises:
        DataError: there is no such file, an id stands twice, or shapes or types differ.
    """
    from safetensors import safe_open

    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise DataError(f"{folder}: no .safetensors file is here; expected one tensor an example.")
    opened = [safe_open(file, framework="pt") for file in files]
    place: dict[str, Any] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    kinds = set()
    for file, handle in zip(files, opened, strict=True):
        for example in handle.keys():  # noqa: SIM118 - no mapping
            if example in place:
                raise DataError(f"{file}: example {example} stands in an earlier file too.")
            part = handle.get_slice(example)
            place[example], shapes[example] = handle, tuple(part.get_shape())
            kinds.add(part.get_dtype())
    names: dict[str, Dtype] = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
    if len(kinds) != 1 or not kinds <= names.keys():
        raise DataError(
            f"{folder}: its tensors are {', '.join(sorted(kinds))}; expected all of one of "
            f"{', '.join(names)}."
        )
    table = folder / "examples.parquet"
    rows = pq.read_table(table).to_pylist() if table.is_file() else []
    known = {row["example_id"]: row for row in rows}
    return VectorSource(
        rows=TokenTable((e, _tokens(e, s[0], known.get(e, {}))) for e, s in shapes.items()),
        read=lambda example: place[example].get_tensor(example),
        d_model=_width(folder, shapes),
        dtype=names[kinds.pop()],
        digest=digest([[f.name, sha256_file(f)] for f in [*files, *([table] if known else [])]]),
    )


def open_memmap(vectors: Path, index: Path, *, bfloat16: bool = False) -> VectorSource:
    """One .npy file [N, D] that is read where it lies, and a Parquet table of its examples.

    Args:
        vectors: float32, float16, or with `bfloat16` the 16 bits of bfloat16 as uint16.
        index: columns example_id, row_start, n_tokens and, where known, tokens, segments, withheld.

    Raises:
        DataError: the file is no such array, or the table does not fit it.
    """
    try:
        values = np.load(vectors, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise DataError(f"{vectors}: numpy cannot map it ({error}).") from error
    wanted = ("uint16",) if bfloat16 else ("float32", "float16")
    if values.ndim != 2 or values.dtype.name not in wanted:
        raise DataError(
            f"{vectors}: it is {values.dtype} {list(values.shape)}; expected "
            f"{' or '.join(wanted)} [N, d_model]."
        )
    table = pq.read_table(index)
    if lacking := _COLUMNS - set(table.column_names):
        raise DataError(f"{index}: lacks the columns {sorted(lacking)}.")
    known: dict[str, dict[str, Any]] = {row["example_id"]: row for row in table.to_pylist()}
    for example, row in known.items():
        if not 0 <= row["row_start"] < row["row_start"] + row["n_tokens"] <= len(values):
            raise DataError(
                f"{index}: example {example} has rows {row['row_start']} to "
                f"{row['row_start'] + row['n_tokens']}, and {vectors.name} has {len(values)}."
            )
    if len(known) != len(table):
        raise DataError(f"{index}: an example_id stands twice.")

    def read(example: str) -> np.ndarray:
        row = known[example]
        return values[row["row_start"] : row["row_start"] + row["n_tokens"]]

    return VectorSource(
        rows=TokenTable((e, _tokens(e, row["n_tokens"], row)) for e, row in known.items()),
        read=read,
        d_model=values.shape[1],
        dtype="bfloat16" if bfloat16 else values.dtype.name,
        digest=digest([sha256_file(vectors), sha256_file(index)]),
    )


def import_vectors(
    source: VectorSource, out: Path, *, config: VectorImport, target: dict[str, str]
) -> dict[str, Any]:
    """Write `source` as a store to the new folder `out`.

    Args:
        target: digests of the model that the vectors are declared to be of
            (`resolve_model(ref).digests()`).

    Returns:
        {"sequences", "tokens", "layer", "d_model", "store_dtype", "shards"}.

    Raises:
        DataError: there is no example.
        StoreError: a vector is not finite in the store's number format.
        StorageError: the disk is full, or something stands at `out`.
    """
    if not len(source.rows):
        raise DataError("there is no example to import.")
    dtype = config.store_dtype or source.dtype
    capture = CaptureConfig(
        layers=(config.layer,),
        compute_dtype=source.dtype,
        store_dtype=dtype,
        codec=config.codec,
        shard_rows=config.shard_rows,
        max_tokens=max(8, int(source.rows.lengths.max())),
    )
    plan = make_plan(
        source.rows,
        config=capture,
        layers=(config.layer,),
        d_model=source.d_model,
        target=target,
        vectors=source.digest,
    )
    with new_folder(out) as aside:
        write_plan(aside, plan)
        with ShardCommitter(aside, plan) as committer:
            for shard in range(plan.n_shards):
                committer.submit(shard, _shard_content(plan, shard, source))
        root = write_root(aside)
        nothing = {"rows": 0, "tokens": 0, "max_relative": 0.0, "tolerance": 0.0}
        write_checksummed_json(aside / CANARY_FILE, {**nothing, "imported": source.digest, "root": root})
    return {
        "sequences": len(plan.sequences),
        "tokens": plan.tokens,
        "layer": config.layer,
        "d_model": plan.d_model,
        "store_dtype": dtype,
        "shards": plan.n_shards,
    }


def _shard_content(
    plan: Plan, shard: int, source: VectorSource
) -> dict[str, np.ndarray[Any, Any]]:
    """Read the rows of one shard into arrays by name."""
    name = layer_array(plan.layers[0])
    content: dict[str, np.ndarray[Any, Any]] = {
        name: np.zeros((plan.shard_rows, plan.d_model), PHYSICAL[plan.dtype]),
        "tokens": np.zeros(plan.shard_rows, np.int32),
        "segments": np.zeros(plan.shard_rows, np.uint8),
    }
    for s in plan.shard(shard):
        start = s.row_start - shard * plan.shard_rows
        rows = slice(start, start + s.n_tokens)
        tokens = source.rows[s.example_id]
        content["tokens"][rows], content["segments"][rows] = tokens.ids, tokens.segments
        content[name][rows] = _in_store_format(source.read(s.example_id), source.dtype, plan.dtype)
    return content


def _in_store_format(values: Any, found: str, dtype: str) -> np.ndarray[Any, Any]:
    """Convert vectors of the source to the type in which `dtype` is stored."""
    if isinstance(values, np.ndarray):
        values = torch.from_numpy(np.array(values))
        values = values.view(torch.bfloat16) if found == "bfloat16" else values
    return to_stored(values, dtype)


def _tokens(example: str, n: int, known: Mapping[str, Any]) -> Tokens:
    ids = np.asarray(known.get("tokens") or np.zeros(n), np.int32)
    segments = np.asarray(known.get("segments") or np.zeros(n), np.uint8)
    if n < 1 or len(ids) != n or len(segments) != n:
        raise DataError(
            f"example {example}: {n} vectors, {len(ids)} tokens and {len(segments)} segments; "
            "expected one of each a token."
        )
    return Tokens(ids, segments, int(known.get("withheld") or 0))


def _width(folder: Path, shapes: Mapping[str, tuple[int, ...]]) -> int:
    first, expected = next(iter(shapes.items()))
    for example, shape in shapes.items():
        if len(shape) != 2 or shape[1] != expected[-1]:
            raise DataError(
                f"{folder}: example {example} has shape {list(shape)}, example {first} "
                f"{list(expected)}; expected [tokens, d_model] of one d_model."
            )
    return expected[1]
