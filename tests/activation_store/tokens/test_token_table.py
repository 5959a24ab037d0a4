"""Tokens of very many rows lie in files, and processes share them."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from activation_store.tokens import token_table
from activation_store.tokens.token_table import TokenTable
from activation_store.tokens.tokens import Tokens


def rows(n: int = 9) -> Iterator[tuple[str, Tokens]]:
    for i in range(n):
        yield f"e{i}", Tokens(np.arange(i, i + 3, dtype=np.int32), np.full(3, i % 4, np.uint8), i)


@pytest.fixture
def spilled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TokenTable:
    monkeypatch.setattr(token_table, "_IN_MEMORY", 6)
    return TokenTable(rows(), scratch=tmp_path)


def test_rows_in_files_are_those_in_memory(spilled: TokenTable, tmp_path: Path) -> None:
    plain = TokenTable(rows())
    assert isinstance(spilled.ids, np.memmap)
    assert len(list(tmp_path.iterdir())) == 1
    for name in plain:
        np.testing.assert_array_equal(spilled[name].ids, plain[name].ids)
        np.testing.assert_array_equal(spilled[name].segments, plain[name].segments)
        assert spilled[name].withheld == plain[name].withheld


def test_another_process_reads_what_was_written(spilled: TokenTable, tmp_path: Path) -> None:
    spilled.write(tmp_path / "tokens.arrow")
    table = TokenTable.read(tmp_path / "tokens.arrow")
    np.testing.assert_array_equal(table["e8"].ids, [8, 9, 10])


def test_the_files_go_with_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_table, "_IN_MEMORY", 6)
    table = TokenTable(rows(), scratch=tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    del table
    gc.collect()
    assert not list(tmp_path.iterdir())


def test_few_rows_stay_in_memory(tmp_path: Path) -> None:
    assert not isinstance(TokenTable(rows(), scratch=tmp_path).ids, np.memmap)
    assert not list(tmp_path.iterdir())
