"""The reference pages are as the code says."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

CHECKOUT = Path(__file__).parents[2]


def reference() -> ModuleType:
    path = CHECKOUT / "scripts" / "reference.py"
    spec = importlib.util.spec_from_file_location("reference", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PAGES: dict[Path, str] = reference().pages()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_page_is_as_the_code_says(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == PAGES[path], "run python scripts/reference.py"


def test_every_section_of_an_experiment_has_a_table() -> None:
    page = PAGES[CHECKOUT / "docs" / "config.md"]
    for section in ("data", "generate.endpoint", "dump", "train.lora", "evaluate", "runtime"):
        assert f"\n## `{section}`\n" in page


def test_every_field_has_a_sentence() -> None:
    rows = [line for line in PAGES[CHECKOUT / "docs" / "config.md"].splitlines() if "| `" in line]
    assert len(rows) > 100
    assert [row for row in rows if row.endswith("|  |")] == []
