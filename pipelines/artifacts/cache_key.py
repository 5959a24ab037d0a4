"""Step identities: a cache key over everything that can change an output, and nothing else.

```
key = sha256(canonical JSON of {schema, kind, version, config, inputs, external})
```

`config` holds every field of a config, defaults included. `inputs` holds each input's key *and* the
digest of its output, so that an input made anew with the same bytes changes nothing, and one with
other bytes changes everything behind it. `external` holds digests of what comes from outside:
source files, weights, tokenizer, chat template; never a name or a path.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from core.documents.canonical import canonical_json
from core.errors import UserError

SCHEMA = 1
"""Version of the identity's own form; part of every key."""

SHORT = 16
"""Hex digits of a key that name its folder."""


class IdentityError(UserError, ValueError):
    """An artifact holds another identity than its folder is named after."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepIdentity:
    """Identity of one output of one step.

    Raises:
        TypeError: a part has no stable identity (named, with what to pass instead).
    """

    kind: str
    """Kind of artifact, which is the name of the step that makes it."""
    version: int
    """Version of the step's code; raised where the same config gives another output."""
    config: Mapping[str, Any]
    """Every setting that decides the output."""
    inputs: Mapping[str, Mapping[str, str]]
    """Role of each input to its `key` and the `digest` of its output."""
    external: Mapping[str, str]
    """Name of each thing from outside to its digest."""

    def payload(self) -> dict[str, Any]:
        """Return the hashed value, as plain JSON types."""
        return {
            "schema": SCHEMA,
            "kind": self.kind,
            "version": self.version,
            "config": dict(self.config),
            "inputs": {role: dict(pair) for role, pair in self.inputs.items()},
            "external": dict(self.external),
        }

    def canonical(self) -> bytes:
        """Return the bytes that are hashed, which `identity.json` keeps."""
        return canonical_json(self.payload())

    @property
    def key(self) -> str:
        """sha256 of the identity, 64 hex digits."""
        return hashlib.sha256(self.canonical()).hexdigest()

    @property
    def short(self) -> str:
        """`kind/` and the first digits of the key: the artifact's place below a root."""
        return f"{self.kind}/{self.key[:SHORT]}"


def plain(config: BaseModel, only: type[BaseModel] | None = None) -> dict[str, Any]:
    """Return every field of `config` as plain JSON types.

    Args:
        config: a frozen config.
        only: a base class of `config`, to return its fields alone: a YAML section adds locations
            to a hashed config, and they are no part of an identity.
    """
    kind = only or type(config)
    values = {name: getattr(config, name) for name in kind.model_fields}
    # Read once more: pydantic takes defaults as they are written, and a default of 32 for a float
    # would have another text than a 32.0 from a file.
    dumped = json.loads(kind.model_construct(**values).model_dump_json())
    return kind.model_validate(dumped).model_dump(mode="json")


_NOT_DECIDING = {"batch_tokens": 2048, "micro_batch_tokens": 1024}
"""Fields that change how fast a step is and not its result, beyond rounding. They were part of
identities once: the defaults of then stand there for all, so that keys stay as they were."""


def deciding(own: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with the fields that cannot change the output set to fixed values."""
    return {name: _NOT_DECIDING.get(name, value) for name, value in own.items()}


def plain_computed(config: BaseModel) -> dict[str, Any]:
    """Return every field of `config` as `plain` does; its number format only if not float32.

    In float32 such a step was computed before there was a choice: its artifacts stay hits.
    """
    own = plain(config)
    if own["compute_dtype"] == "float32":
        del own["compute_dtype"]
    return own


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """One field in which two identities differ; a side without it holds `ABSENT`."""

    field: str
    """Dotted path, such as `config.decoder.write_layer`."""
    left: Any
    right: Any

    def __str__(self) -> str:
        return f"{self.field}: {_shown(self.left)} → {_shown(self.right)}"


ABSENT = "(absent)"


def differences(left: Mapping[str, Any], right: Mapping[str, Any]) -> list[Difference]:
    """Return the fields in which two identity payloads differ, in the order of their paths."""
    a, b = dict(leaves(left)), dict(leaves(right))
    return [
        Difference(field=name, left=a.get(name, ABSENT), right=b.get(name, ABSENT))
        for name in sorted(a.keys() | b.keys())
        if a.get(name, ABSENT) != b.get(name, ABSENT)
    ]


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted path and the value of everything in a nested mapping that is none itself."""
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from leaves(item, f"{path}.{key}" if path else key)
    else:
        yield path, value


def _shown(value: Any) -> str:
    if isinstance(value, str) and len(value) == 64 and not set(value) - set("0123456789abcdef"):
        return value[:12] + "…"
    return json.dumps(value, ensure_ascii=False) if value != ABSENT else ABSENT
