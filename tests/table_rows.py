"""Rows of the conversations table, with values in the fields that a test does not look at."""

from __future__ import annotations

from typing import Any

from core.records.tables import Conversation


def conversation(name: str = "x", **fields: Any) -> Conversation:
    """Make a row that is alone in its control and its group."""
    own: dict[str, Any] = {
        "example_id": f"e{name}",
        "control_id": f"c{name}",
        "group_id": f"g{name}",
        "kind": "persona",
        "category": "sea",
        "label": f"l{name}",
        "view": "control",
        "split": "train",
        "source": "generator",
        "messages": (),
    }
    return Conversation(**(own | fields))
