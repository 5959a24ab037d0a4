"""The kinds of controls that can be generated; docs/generation.md shows how to add one."""

from __future__ import annotations

import difflib

from generators.errors import ConfigError
from generators.kinds.base import Kind
from generators.kinds.extractive import Extractive
from generators.kinds.goal import Goal
from generators.kinds.persona import Persona

KINDS: dict[str, Kind] = {kind.name: kind for kind in (Persona(), Goal(), Extractive())}


def kind_named(name: str) -> Kind:
    """The kind `name`.

    Raises:
        ConfigError: there is no such kind; the text names the nearest.
    """
    if name not in KINDS:
        near = difflib.get_close_matches(name, KINDS, n=1)
        hint = f"did you mean {near[0]!r}" if near else "known are " + ", ".join(KINDS)
        raise ConfigError(f"generate.conversations.kinds: there is no kind {name!r} ({hint}).")
    return KINDS[name]
