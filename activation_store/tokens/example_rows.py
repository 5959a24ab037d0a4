"""Columns with a row for each example, looked up by its id."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, TypeVar

import pyarrow as pa

V_co = TypeVar("V_co", covariant=True)


class ExampleRows(Mapping[str, V_co]):
    """A mapping from example ids to rows, which become Python objects when they are looked up.

    Attributes:
        example_ids: [rows] strings.
    """

    example_ids: pa.StringArray

    @abstractmethod
    def at(self, number: int) -> V_co:
        """Return the `number`-th row."""

    def number(self, example_id: str) -> int:
        """Return the position of an example.

        Raises:
            KeyError: it is not among the rows.
        """
        return self._numbers[example_id]

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {example: n for n, example in enumerate(self.example_ids.to_pylist())}

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is made at the first use."""
        return {k: v for k, v in self.__dict__.items() if not k.startswith("_")}

    def __getitem__(self, example_id: str) -> V_co:
        return self.at(self.number(example_id))

    def __contains__(self, example_id: object) -> bool:
        return example_id in self._numbers

    def __iter__(self) -> Iterator[str]:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self.example_ids)
