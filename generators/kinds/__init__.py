"""The registry of the kinds of controls; docs/generation.md shows how to add one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from core.errors import ConfigError
from core.records.tables import Conversation
from generators.kinds.base import DrawnKind, Kind, WrittenKind
from generators.kinds.context import Context
from generators.kinds.extractive import Extractive
from generators.kinds.goal import Goal
from generators.kinds.instruction import Instruction
from generators.kinds.own import Own
from generators.kinds.persona import Persona
from generators.kinds.profile import Profile
from generators.kinds.relation import Relations

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Persona(),
        Goal(),
        Extractive(),
        Profile(),
        Context(),
        Instruction(),
        Relations(),
    )
}

OWN = Own()
"""How imported rows are asked about whose kind has no prompts; no control is made of it."""


def get_kind(name: str) -> Kind:
    """Return the kind called `name`.

    Raises:
        ConfigError: there is no such kind; the text names the nearest.
    """
    if name not in KINDS:
        near = difflib.get_close_matches(name, KINDS, n=1)
        hint = f"did you mean {near[0]!r}" if near else "known are " + ", ".join(KINDS)
        raise ConfigError(f"generate.conversations.kinds: unknown kind {name!r} ({hint}).")
    return KINDS[name]


def written_kinds(names: Iterable[str]) -> dict[str, WrittenKind]:
    """Return those of the kinds `names` that an LLM writes, in the order given."""
    kinds = {name: get_kind(name) for name in names}
    return {name: kind for name, kind in kinds.items() if isinstance(kind, WrittenKind)}


def asking_kinds(rows: Iterable[Conversation]) -> dict[str, WrittenKind]:
    """Return, by name, the kinds whose questions an LLM writes, among those of `rows`.

    Rows that were imported have kinds of any name; those without prompts of their own are asked
    about as `own`.

    Raises:
        ConfigError: rows that were not imported have an unknown kind.
    """
    found: dict[str, WrittenKind] = {}
    for name, source in dict.fromkeys((row.kind, row.source) for row in rows):
        kind = KINDS.get(name) if source == "import" else get_kind(name)
        if isinstance(kind, WrittenKind):
            found[name] = kind
        elif source == "import":
            found[name] = OWN
    return found


def drawn_kinds(names: Iterable[str]) -> dict[str, DrawnKind]:
    """Return those of the kinds `names` that code draws, in the order given."""
    kinds = {name: get_kind(name) for name in names}
    return {name: kind for name, kind in kinds.items() if isinstance(kind, DrawnKind)}
