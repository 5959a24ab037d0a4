"""Tokenized conversations as columns; the tokens of very many rows lie in files of this run."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from array import array
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import feather

from activation_store.tokens.example_rows import ExampleRows
from activation_store.tokens.tokens import Tokens

_IN_MEMORY = 1 << 24
"""Tokens that are kept in memory; beyond them all go into files."""


class TokenTable(ExampleRows[Tokens]):
    """The tokens of each conversation by example id, in the order in which they came.

    Attributes:
        example_ids: [rows] strings.
        lengths: [rows] int64, in tokens.
        withheld: [rows] int64, leading tokens that masking withholds.
        ids: [tokens of all rows] int32, one row after the other.
        segments: [tokens of all rows] uint8.
    """

    def __init__(self, rows: Iterable[tuple[str, Tokens]], *, scratch: Path | None = None) -> None:
        """Take rows as they come, each id once; none is kept as an object of its own.

        Args:
            rows: example id and tokens of each.
            scratch: folder in which a folder for the tokens is made where there are very many; it
                goes with the table. None keeps all in memory.
        """
        self._folder: Path | None = None
        known = set[str]()
        ids, segments = array("i"), array("B")
        names, lengths, withheld = list[str](), array("q"), array("q")
        for name, tokens in rows:
            if name in known:
                continue
            known.add(name)
            names.append(name)
            lengths.append(len(tokens.ids))
            withheld.append(tokens.withheld)
            ids.frombytes(np.ascontiguousarray(tokens.ids, np.int32).tobytes())
            segments.frombytes(np.ascontiguousarray(tokens.segments, np.uint8).tobytes())
            if scratch is not None and len(ids) >= _IN_MEMORY:
                self._spill(scratch, ids, segments)
                ids, segments = array("i"), array("B")
        self.example_ids = pa.array(names, pa.string())
        self.lengths = np.asarray(lengths, np.int64)
        self.withheld = np.asarray(withheld, np.int64)
        if self._folder is None:
            self.ids: np.ndarray[Any, Any] = np.asarray(ids, np.int32)
            self.segments: np.ndarray[Any, Any] = np.asarray(segments, np.uint8)
        else:
            self._spill(self._folder.parent, ids, segments)
            # forked processes share the pages of what is mapped
            self.ids = np.memmap(self._folder / "ids", np.int32, "r")
            self.segments = np.memmap(self._folder / "segments", np.uint8, "r")

    def _spill(self, scratch: Path, ids: array[int], segments: array[int]) -> None:
        """Append tokens to the files of this table."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix=".tokens-", dir=scratch))
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        for name, values in (("ids", ids), ("segments", segments)):
            with open(self._folder / name, "ab") as file:
                values.tofile(file)

    def write(self, path: Path) -> None:
        """Write the table to a file, from which other processes read it.

        Raises:
            OSError: the file cannot be written.
        """
        stops = pa.array(np.concatenate([[0], self._stops]), pa.int64())
        columns = {
            "example_id": self.example_ids,
            "withheld": pa.array(self.withheld),
            "ids": pa.LargeListArray.from_arrays(stops, pa.array(self.ids)),
            "segments": pa.LargeListArray.from_arrays(stops, pa.array(self.segments)),
        }
        feather.write_feather(pa.table(columns), path, compression="uncompressed")

    @classmethod
    def read(cls, path: Path) -> TokenTable:
        """Read a table that `write` wrote.

        Raises:
            OSError: there is no such file.
        """
        columns = feather.read_table(path).combine_chunks()
        table = cls(())
        ids, segments = (columns[name].chunk(0) for name in ("ids", "segments"))
        table.example_ids = columns["example_id"].chunk(0)
        table.withheld = columns["withheld"].to_numpy()
        table.lengths = np.diff(ids.offsets.to_numpy())
        table.ids, table.segments = ids.values.to_numpy(), segments.values.to_numpy()
        return table

    def at(self, number: int) -> Tokens:
        """Return the tokens of the `number`-th row, as views."""
        stop = int(self._stops[number])
        own = slice(stop - int(self.lengths[number]), stop)
        return Tokens(self.ids[own], self.segments[own], int(self.withheld[number]))

    @cached_property
    def _stops(self) -> np.ndarray[Any, Any]:
        return np.cumsum(self.lengths)
