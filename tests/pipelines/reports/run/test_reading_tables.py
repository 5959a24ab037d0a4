"""What a decoder reads, as Markdown."""

from __future__ import annotations

from typing import Any

from fake_steps import LEAF, READING

from pipelines.reports.run.tables import reading_tables

CASE: dict[str, Any] = READING["test"]["control"]
IDENTIFIED = {
    "accuracy": {"right": LEAF, "none": LEAF},
    **dict.fromkeys(("chance", "grounded_gain", "information_gain"), LEAF),
    "asked": 7,
    "left_out": 2,
}


def test_identification_without_an_item_has_none() -> None:
    plain = reading_tables({"test": {"control": CASE}})
    nothing = {**IDENTIFIED, "asked": 0}
    assert reading_tables({"test": {"control": {**CASE, "identification": nothing}}}) == plain


def test_identification_has_a_table_where_it_was_measured() -> None:
    plain = reading_tables({"test": {"control": CASE}})
    found = reading_tables({"test": {"control": {**CASE, "identification": IDENTIFIED}}})
    assert found.startswith(plain)
    _, _, head, _, line = found.removeprefix(plain).strip().splitlines()
    assert head.startswith(
        "| split | view | items | n | right | none | chance | hidden gain | grounded gain |"
    )
    assert line.startswith("| test | control | 7 | 9 | 1.00 [0.50, 1.50] |")
