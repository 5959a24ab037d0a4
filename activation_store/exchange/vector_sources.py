"""Vectors outside of any store, opened from the files that other programs wrote."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from activation_store.exchange.exporting import EXAMPLES_FILE, LAYER_FILE, ExportResult
from activation_store.target.load import Shape
from activation_store.tokens.token_table import TokenTable
from activation_store.tokens.tokens import SEGMENT_CODES, Tokens
from core.documents.canonical import digest
from core.documents.strict_json import load_json
from core.errors import DataError, first_line
from core.files import read_file, sha256_file

_DECLARED = frozenset({*(own.name for own in fields(ExportResult)), "target", "plan"})
"""What `layer.json` may say."""
Dtype = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True, slots=True)
class VectorSource:
    """Vectors outside of any store.

    Attributes:
        rows: tokens by example id; ids and segments are 0 where the source does not say.
        read: reads the vectors [T, D] of an example, in the source's own type.
        d_model: their width D.
        dtype: their number format.
        digest: of the files that they come from.
        declared: what the source's own `layer.json` says of them: layer, target, ...; empty
            where it has none.
        path: where they are, for messages.
    """

    rows: TokenTable
    read: Callable[[str], Any]
    d_model: int
    dtype: Dtype
    digest: str
    path: Path
    declared: Mapping[str, Any] = field(default_factory=dict)


def open_safetensors(folder: Path) -> VectorSource:
    """Open a folder of .safetensors files, one tensor [T, D] an example, named by its id.

    Tokens, segments and withheld tokens come from `examples.parquet` where it is there, and layer
    and target from `layer.json`, both as an export writes them.

    Raises:
        DataError: there is no such file, an id stands twice, shapes or types differ, or
            `examples.parquet` does not fit the tensors.
    """
    from safetensors import safe_open

    if not folder.is_dir():
        raise DataError(
            f"{folder}: not a folder, expected a folder of .safetensors files, or a .npy "
            "file with --index."
        )
    # what is hidden is left by other systems
    files = sorted(f for f in folder.glob("*.safetensors") if not f.name.startswith("."))
    if not files:
        raise DataError(f"{folder}: no .safetensors file is here; expected one tensor an example.")
    place: dict[str, Any] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    kinds = set()
    for file in files:
        try:
            handle: Any = safe_open(file, framework="pt")
        except Exception as error:  # the Rust library has an exception type of its own
            raise DataError(f"{file}: not a safetensors file ({error}).") from error
        for example in handle.keys():  # noqa: SIM118 - no mapping
            if example in place:
                raise DataError(
                    f"{file}: example {example} is in an earlier file as well, expected each once."
                )
            part = handle.get_slice(example)
            place[example], shapes[example] = handle, tuple(part.get_shape())
            kinds.add(part.get_dtype())
    names: dict[str, Dtype] = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
    if len(kinds) != 1 or not kinds <= names.keys():
        raise DataError(
            f"{folder}: its tensors are {', '.join(sorted(kinds)) or 'none'}; expected all of one "
            f"of {', '.join(names)}."
        )
    table, about = folder / EXAMPLES_FILE, folder / LAYER_FILE
    known = _read_examples(table) if table.is_file() else {}
    if known and (unlike := known.keys() ^ shapes.keys()):
        raise DataError(
            f"{table}: has {len(known)} examples but there are {len(shapes)} tensors; "
            f"example {min(unlike)} is only in one of them."
        )
    others = [file for file in (table, about) if file.is_file()]
    return VectorSource(
        rows=TokenTable((e, _tokens(folder, e, s[0], known.get(e, {}))) for e, s in shapes.items()),
        read=lambda example: place[example].get_tensor(example),
        d_model=_width(folder, shapes),
        dtype=names[kinds.pop()],
        digest=digest([[f.name, sha256_file(f)] for f in [*files, *others]]),
        path=folder,
        declared=_read_declared(about) if about.is_file() else {},
    )


def open_memmap(vectors: Path, index: Path, *, bfloat16: bool = False) -> VectorSource:
    """Open a memory-mapped .npy file [N, D] and the Parquet table of its examples.

    Args:
        vectors: float32, float16, or with `bfloat16` the 16 bits of bfloat16 as uint16.
        index: columns example_id, row_start, n_tokens and, where known, tokens, segments, withheld.
        bfloat16: whether the vectors are bits of bfloat16.

    Raises:
        DataError: the file is no such array, or the table does not fit it: rows outside of the
            array, or of two examples.
    """
    try:
        values = np.load(vectors, mmap_mode="r")
    except Exception as error:  # a header that is no Python literal fails in many ways
        raise DataError(f"{vectors}: numpy cannot map it ({first_line(error)}).") from error
    wanted = ("uint16",) if bfloat16 else ("float32", "float16")
    if values.ndim != 2 or values.dtype.name not in wanted:
        raise DataError(
            f"{vectors}: it is {values.dtype} {list(values.shape)}; expected "
            f"{' or '.join(wanted)} [N, d_model]."
        )
    known = _read_examples(index, ("row_start",))
    end, before = 0, ""
    for example, row in sorted(known.items(), key=lambda item: (item[1]["row_start"], item[0])):
        start, stop = row["row_start"], row["row_start"] + row["n_tokens"]
        if not 0 <= start < stop <= len(values):
            raise DataError(
                f"{index}: example {example} has rows {start} to {stop}, and {vectors.name} has "
                f"{len(values)}."
            )
        if start < end:
            raise DataError(
                f"{index}: examples {before} and {example} overlap: one ends at row {end}, the "
                f"other begins at {start}."
            )
        end, before = stop, example
    kind: Dtype = "bfloat16" if bfloat16 else values.dtype.name

    def read(example: str) -> np.ndarray[Any, Any]:
        start = known[example]["row_start"]
        return np.asarray(values[start : start + known[example]["n_tokens"]])

    return VectorSource(
        rows=TokenTable((e, _tokens(index, e, row["n_tokens"], row)) for e, row in known.items()),
        read=read,
        d_model=values.shape[1],
        dtype=kind,
        digest=digest([sha256_file(vectors), sha256_file(index)]),
        path=vectors,
    )


def check_declared(
    source: VectorSource, *, layer: int, shape: Shape, target: Mapping[str, str]
) -> None:
    """Compare what a source says of its vectors with what the caller says of them.

    Args:
        source: the vectors.
        layer: block whose output they are said to be.
        shape: the shape of the model that they are said to be of.
        target: that model's digests.

    Raises:
        DataError: the width is not the model's, or `layer.json` names another layer, width,
            number of tokens or target, or a token is not the model's; both sides are shown.
    """
    if source.d_model != shape.d_model:
        raise DataError(
            f"{source.path}: d_model {source.d_model}, and {shape.ref} has {shape.d_model}. "
            "Name the target that the vectors are of."
        )
    if (largest := int(source.rows.ids.max())) >= shape.vocabulary:
        raise DataError(
            f"{source.path}: token id {largest}, and {shape.ref} knows {shape.vocabulary} tokens. "
            "Name the target that the vectors are of."
        )
    own = {
        "layer": layer,
        "d_model": source.d_model,
        "dtype": source.dtype,
        "examples": len(source.rows),
        "tokens": int(source.rows.lengths.sum()),
    }
    for name, value in own.items():
        said = source.declared.get(name, value)
        if said != value or type(said) is not type(value):
            expected = f"--layer {value}" if name == "layer" else f"the vectors have {value}"
            raise DataError(
                f"{source.path / LAYER_FILE}: {name} is {said!r}, and {expected}. "
                "Say what they are, or export them again."
            )
    said_target = source.declared.get("target", {})
    for name in sorted(said_target.keys() | target.keys()) if said_target else ():
        if said_target.get(name) != target.get(name):
            raise DataError(
                f"{source.path / LAYER_FILE}: the vectors are of another target than {shape.ref}: "
                f"{name} is {str(said_target.get(name))[:24]} there and "
                f"{str(target.get(name))[:24]} in the model. Name the target that they are of."
            )


def _read_examples(path: Path, needed: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
    """Read a table of examples, by id.

    Raises:
        DataError: a column is missing or of another type, or an id stands twice.
    """
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: not a Parquet table ({error}).") from error
    columns = ("example_id", "n_tokens", *needed)
    if lacking := set(columns) - set(table.column_names):
        raise DataError(f"{path}: it lacks the columns {sorted(lacking)}.")
    for name in columns:
        kind = table.schema.field(name).type
        if pa.types.is_dictionary(kind):  # a categorical column of pandas
            kind = kind.value_type
        text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        if table[name].null_count or not (
            text if name == "example_id" else pa.types.is_integer(kind)
        ):
            wanted = "text" if name == "example_id" else "integers"
            raise DataError(f"{path}: column {name} is {kind}; expected {wanted}, none missing.")
    rows: dict[str, dict[str, Any]] = {row["example_id"]: row for row in table.to_pylist()}
    if len(rows) != len(table):
        raise DataError(f"{path}: an example_id occurs twice, expected each once.")
    if not rows:
        raise DataError(f"{path}: has no example.")
    if "" in rows:
        raise DataError(f"{path}: an example_id is empty.")
    return rows


def _read_declared(path: Path) -> dict[str, Any]:
    try:
        value = load_json(read_file(path))
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error}).") from error
    if not isinstance(value, dict) or not isinstance(value.get("target", {}), dict):
        raise DataError(f"{path}: not what an export writes; remove it, or export again.")
    if unknown := sorted(value.keys() - _DECLARED):
        raise DataError(
            f"{path}: unknown field {unknown[0]!r}; an export writes "
            f"{', '.join(sorted(_DECLARED))}. Remove what is not one of these."
        )
    return value


def _tokens(source: Path, example: str, n: int, known: Mapping[str, Any]) -> Tokens:
    """Return the tokens of an example of `n` vectors, as far as the source knows them.

    Raises:
        DataError: they do not fit the vectors.
    """
    zeros = [0] * n
    given = {name: known.get(name) for name in ("tokens", "segments")}
    try:
        columns = {name: np.asarray(zeros if c is None else c) for name, c in given.items()}
    except ValueError as error:  # lists of several lengths
        raise DataError(f"{source}: example {example}: tokens are not a list ({error}).") from error
    for name, column in columns.items():
        if column.dtype.kind not in "iu" or column.ndim != 1:
            found = f"{column.dtype} {list(column.shape)}"
            raise DataError(
                f"{source}: example {example}: {name} are {found}; expected a list of integers of "
                "at most 64 bits, none missing."
            )
    ids, segments = columns["tokens"], columns["segments"]
    withheld = known.get("withheld") or 0
    if n < 1 or len(ids) != n or len(segments) != n or known.get("n_tokens", n) != n:
        raise DataError(
            f"{source}: example {example}: {n} vectors, {len(ids)} tokens and {len(segments)} "
            f"segments (n_tokens {known.get('n_tokens', n)}); expected one of each a token."
        )
    if ids.min() < 0 or ids.max() > np.iinfo(np.int32).max:
        raise DataError(f"{source}: example {example}: a token id is negative or above 32 bits.")
    codes = set(SEGMENT_CODES.values())
    if unknown := set(segments.tolist()) - codes:
        raise DataError(
            f"{source}: example {example}: segment {min(unknown)}; expected one of "
            f"{', '.join(f'{code} ({name})' for name, code in SEGMENT_CODES.items())}."
        )
    if type(withheld) is not int or not 0 <= withheld <= n:
        raise DataError(
            f"{source}: example {example}: withheld is {withheld}; expected 0 to {n}, its tokens."
        )
    return Tokens(ids.astype(np.int32), segments.astype(np.uint8), withheld)


def _width(folder: Path, shapes: Mapping[str, tuple[int, ...]]) -> int:
    first, expected = next(iter(shapes.items()))
    for example, shape in shapes.items():
        if len(shape) != 2 or shape[1] != expected[-1]:
            raise DataError(
                f"{folder}: example {example} has shape {list(shape)}, example {first} "
                f"{list(expected)}; expected [tokens, d_model] of one d_model."
            )
    return expected[1]
