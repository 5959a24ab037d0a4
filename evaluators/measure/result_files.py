"""The files of an evaluation: their names, and the columns of those in Parquet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from core.errors import DamagedError
from core.files import write_bytes

METRICS_FILE = "metrics.json"
LOSSES_FILE = "losses.parquet"
ANSWERS_FILE = "answers.parquet"
ITEMS_FILE = "items.parquet"
RESULTS_FILE = "results.parquet"
VERDICTS_FILE = "verdicts.parquet"
JUDGED_FILE = "judged.json"
ROBUSTNESS_FILE = "robustness.json"


def _texts(*names: str) -> list[tuple[str, Any]]:
    return [(name, pa.string()) for name in names]


LOSSES = pa.schema(
    [
        *_texts("split", "view", "kind", "category", "control_id", "example_id"),
        *_texts("question", "type", "condition"),
        ("loss", pa.float64()),
        ("control_effect", pa.float64()),
    ]
)
"""One row a question and condition; losses in nats a token, and where rows have completions how
firmly the target holds the row's control, in nats a completion."""

ANSWERS = pa.schema(
    [
        *_texts("split", "view", "kind", "category", "label", "control_id", "example_id"),
        *_texts("control", "question", "type", "gold", "right", "other", "other_control"),
        *_texts("swapped", "none"),
        ("right_log_probability", pa.float64()),
        ("other_log_probability", pa.float64()),
        ("right_finished", pa.bool_()),
        ("other_finished", pa.bool_()),
    ]
)
"""One row a question whose answers were written: given the row's own activations, another's, in
masked views those of the same visible text under another control, and none."""

ITEMS = pa.schema(
    [
        *_texts("split", "view", "kind", "category", "type", "control_id", "example_id"),
        *_texts("question", "condition"),
        ("options", pa.list_(pa.string())),
        ("losses", pa.list_(pa.float64())),
        ("correct", pa.float64()),
    ]
)
"""One row an item of identification and condition; gold is the first option."""

VERDICTS = pa.schema(
    _texts(
        *("split", "view", "control_id", "example_id", "question", "gold", "side", "answer"),
        *("first", "second"),
    )
)
"""One row an answer that an LLM judged, from the row's own activations (`right`) or another's: the
verdicts of both times, null where a reply could not be read."""

RESULTS = pa.schema(
    [
        *_texts("split", "view", "group", "metric"),
        ("foreign_target", pa.bool_()),
        *((name, pa.float64()) for name in ("estimate", "low", "high")),
        ("n", pa.int64()),
        ("note", pa.string()),
    ]
)
"""One row a number: of everything (`all`), and of each group; `foreign_target` says whether the
activations were those of another target than the decoder's own."""


def write_table(path: Path, rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> None:
    """Write `rows` as Parquet, atomically; the same rows give the same bytes."""
    buffer = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(list(rows), schema), buffer, compression="zstd")
    write_bytes(path, buffer.getvalue().to_pybytes())


def read_rows(path: Path | None) -> list[dict[str, Any]]:
    """Read the rows of a Parquet file; none where there is no file.

    Raises:
        DamagedError: the file is there and cannot be read.
    """
    if path is None:
        return []
    try:
        rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    except pa.ArrowInvalid as error:
        raise DamagedError(
            f"{path}: not a readable Parquet file ({error}). Delete its artifact and run again.",
            path,
        ) from error
    return rows
