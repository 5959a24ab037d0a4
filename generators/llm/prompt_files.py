"""Prompt templates and seeds: the text files that decide what an LLM is asked.

A prompt is a YAML file with its few-shot examples inside:

```yaml
version: 1
system: one paragraph of instruction
user: "Idea: {{idea}}"            # filled once for each example and once for the request
examples:                         # few-shot turns
  - fill: {idea: a lighthouse keeper}
    reply: {persona: a lighthouse keeper who ...}
reply:                            # JSON-schema properties; all are required
  persona: {type: string}
max_tokens: 80                    # longest reply, in tokens
```

The user's own folders (`generate.prompts`, `generate.seeds`) replace packaged files of the same
name; what decides identity is each file's bytes, not where it lies.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import yaml

from core.errors import ConfigError

T = TypeVar("T")

_SLOT = re.compile(r"\{\{([a-z_]+)\}\}")


def fill(template: str, values: Mapping[str, str]) -> str:
    """`template` with each `{{name}}` replaced by its value, in one pass.

    A value is never looked at again: braces, quotes and backslashes in it stay what they are.

    Raises:
        ConfigError: the template names a slot that has no value.
    """

    def value(match: re.Match[str]) -> str:
        if match[1] not in values:
            raise ConfigError(
                f"prompt slot {{{{{match[1]}}}}} has no value; known here: {sorted(values)}."
            )
        return values[match[1]]

    return _SLOT.sub(value, template)


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """One template file.

    Attributes:
        name: file name without its ending.
        digest: sha256 of the file.
        few_shot: the replies of its examples, as dicts.
    """

    name: str
    digest: str
    system: str
    user: str
    examples: tuple[tuple[Mapping[str, str], Mapping[str, Any]], ...]
    reply: Mapping[str, Any]
    max_tokens: int

    @property
    def few_shot(self) -> list[Mapping[str, Any]]:
        return [reply for _, reply in self.examples]

    @cached_property
    def schema(self) -> dict[str, Any]:
        """JSON schema of a reply: an object with exactly the properties of `reply`."""
        return {
            "type": "object",
            "properties": dict(self.reply),
            "required": list(self.reply),
            "additionalProperties": False,
        }

    def messages(self, values: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
        """(role, content) pairs: instruction, few-shot turns, and the request itself.

        What differs between requests comes last, so that a server can keep the rest in its cache.
        """
        return (*self._shared, ("user", fill(self.user, values)))

    @cached_property
    def _shared(self) -> tuple[tuple[str, str], ...]:
        """What all requests begin with: held once, however many there are."""
        turns = [("system", self.system)]
        for example, reply in self.examples:
            turns.append(("user", fill(self.user, example)))
            # as a server's grammar writes it: no line breaks to spend tokens on
            turns.append(("assistant", json.dumps(reply, ensure_ascii=False)))
        return tuple(turns)


@dataclass(frozen=True, kw_only=True)
class PromptFiles:
    """The prompts and seeds of a run: packaged files, or the user's in place of them.

    Each file is read once; a run sees one version of it.
    """

    prompts: Path | None = None
    seeds: Path | None = None
    _parsed: dict[tuple[str, str], Any] = field(default_factory=dict, compare=False, repr=False)

    def prompt(self, name: str) -> Prompt:
        """The template `name`.

        Raises:
            ConfigError: no such file, or it is not a prompt; the text names file and field.
        """
        if ("prompts", name) not in self._parsed:
            self._parsed["prompts", name] = self._read_prompt(name)
        return self._parsed["prompts", name]

    def _read_prompt(self, name: str) -> Prompt:
        where, data = _read("prompts", self.prompts, name)
        fields = _yaml(where, data)
        if not isinstance(fields, dict):
            raise ConfigError(f"{where}: expected a mapping with system, user, examples, reply.")
        wanted = {"version", "system", "user", "examples", "reply", "max_tokens"}
        if wrong := sorted(wanted ^ set(fields)):
            raise ConfigError(
                f"{where}: field {wrong[0]!r} is {'missing' if wrong[0] in wanted else 'unknown'}; "
                f"a prompt has {sorted(wanted)}."
            )
        try:
            examples = tuple((dict(e["fill"]), dict(e["reply"])) for e in fields["examples"])
        except (TypeError, KeyError, ValueError) as error:
            raise ConfigError(f"{where}: each of `examples` needs `fill` and `reply`.") from error
        return Prompt(
            name=name,
            digest=hashlib.sha256(data).hexdigest(),
            system=fields["system"].strip(),
            user=fields["user"].strip(),
            examples=examples,
            reply=fields["reply"],
            max_tokens=fields["max_tokens"],
        )

    def by_category(self, name: str) -> dict[str, list[str]]:
        """Seeds of the file `name`: category → seeds, in file order."""
        where, seeds = self._seeds(name)
        if not isinstance(seeds, dict) or not all(_is_texts(items) for items in seeds.values()):
            raise ConfigError(f"{where}: expected categories, each with a list of texts.")
        return seeds

    def listed(self, name: str) -> list[str]:
        """Texts of the file `name`, in file order."""
        where, items = self._seeds(name)
        if not _is_texts(items):
            raise ConfigError(f"{where}: expected a list of texts.")
        return items

    def made(self, name: str, make: Callable[[str, Any], T]) -> T:
        """What `make` makes of the place and the content of the seeds file `name`, made once."""
        if ("made", name) not in self._parsed:
            self._parsed["made", name] = make(*self._seeds(name))
        return self._parsed["made", name]

    def _seeds(self, name: str) -> tuple[str, Any]:
        if ("seeds", name) not in self._parsed:
            where, data = _read("seeds", self.seeds, name)
            self._parsed["seeds", name] = where, _yaml(where, data)
        where, parsed = self._parsed["seeds", name]
        return where, parsed

    def digests(self, *, prompts: tuple[str, ...], seeds: tuple[str, ...]) -> dict[str, str]:
        """sha256 of each file named, under `prompts/NAME` and `seeds/NAME`."""
        found = {f"prompts/{n}": _read("prompts", self.prompts, n)[1] for n in sorted(prompts)}
        found |= {f"seeds/{n}": _read("seeds", self.seeds, n)[1] for n in sorted(seeds)}
        return {name: hashlib.sha256(data).hexdigest() for name, data in found.items()}


def _read(folder: str, own: Path | None, name: str) -> tuple[str, bytes]:
    if own is not None:
        if not own.is_dir():
            raise ConfigError(f"generate.{folder}: {own} is not a folder; expected YAML files.")
        path = own / f"{name}.yaml"
        if path.is_file():
            return str(path), path.read_bytes()
    packaged = files("generators") / folder / f"{name}.yaml"
    if not packaged.is_file():
        raise ConfigError(f"generate.{folder}: there is no {name}.yaml, neither packaged nor own.")
    return f"{folder}/{name}.yaml", packaged.read_bytes()


def _is_texts(items: Any) -> bool:
    return isinstance(items, list) and bool(items) and all(isinstance(i, str) for i in items)


def _yaml(where: str, data: bytes) -> Any:
    try:
        return yaml.safe_load(data)
    except yaml.YAMLError as error:
        line = str(error).replace("\n", " ")
        raise ConfigError(f"{where}: not YAML ({line}).") from error
