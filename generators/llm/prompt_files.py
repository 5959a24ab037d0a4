"""Read prompt templates and seeds: the text files that decide what an LLM is asked.

A prompt is a YAML file with its few-shot examples inside:

```yaml
version: 1
system: one paragraph of instruction
user: "Idea: {{idea}}"            # a Jinja template, filled for each example and each request
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

import difflib
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar, cast

from jinja2 import StrictUndefined, Template, TemplateError
from jinja2.meta import find_undeclared_variables
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, best_match

from core.documents.yaml_values import parse_yaml
from core.errors import ConfigError

T = TypeVar("T")

# values are texts of a prompt, not of a web page; and a prompt from elsewhere runs no code
_JINJA = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False)
_FIELDS: Mapping[str, type] = {
    "version": int,
    "system": str,
    "user": str,
    "examples": list,
    "reply": dict,
    "max_tokens": int,
}


def fill(template: str, values: Mapping[str, str]) -> str:
    """Fill the slots of a Jinja `template`.

    A value is never looked at again: braces, quotes and backslashes in it stay what they are.

    Raises:
        ConfigError: a slot has no value, or a value no slot.
    """
    slots = slots_of(template)
    if missing := sorted(slots - set(values)):
        raise ConfigError(
            f"prompt slot {{{{{missing[0]}}}}} has no value; known here: {sorted(values)}."
        )
    if unused := sorted(set(values) - slots):
        raise ConfigError(
            f"prompt: no slot {{{{{unused[0]}}}}}, which a request has to carry; the text has "
            f"{sorted(slots)}. Write it where it belongs."
        )
    try:
        return _compiled(template).render(values)
    except (TemplateError, TypeError, ValueError) as error:
        raise ConfigError(f"prompt: the Jinja template fails ({error}).") from error


@lru_cache(maxsize=256)
def slots_of(template: str) -> frozenset[str]:
    """Name the slots of a Jinja `template`.

    Raises:
        ConfigError: it is no template.
    """
    try:
        return frozenset(find_undeclared_variables(_JINJA.parse(template)))
    except TemplateError as error:
        raise ConfigError(f"prompt: not a Jinja template ({error}).") from error


@lru_cache(maxsize=256)
def _compiled(template: str) -> Template:
    return _JINJA.from_string(template)


@dataclass(frozen=True, kw_only=True)
class PromptTemplate:
    """One prompt template file, with its digest.

    Attributes:
        name: file name without its ending.
        digest: sha256 of the file.
        system: instruction, sent as it is.
        user: Jinja template of a request.
        examples: few-shot turns: what fills `user`, and the reply.
        reply: JSON-schema properties of a reply.
        max_tokens: longest reply, in tokens.
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
        """The replies of the examples."""
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
        """Build (role, content) pairs: instruction, few-shot turns, and the request itself.

        What differs between requests comes last, so that a server can keep the rest in its cache.

        Raises:
            ConfigError: a slot has no value, or a value no slot; the text names the file.
        """
        return (*self._shared, ("user", self._filled(values)))

    @cached_property
    def _shared(self) -> tuple[tuple[str, str], ...]:
        """What all requests begin with: held once, however many there are."""
        turns = [("system", self.system)]
        for example, reply in self.examples:
            turns.append(("user", self._filled(example)))
            # as a server's grammar writes it: no line breaks to spend tokens on
            turns.append(("assistant", json.dumps(reply, ensure_ascii=False)))
        return tuple(turns)

    def _filled(self, values: Mapping[str, str]) -> str:
        try:
            return fill(self.user, values)
        except ConfigError as error:
            raise ConfigError(f"prompts/{self.name}.yaml: user: {error}") from error


@dataclass(frozen=True, kw_only=True)
class PromptFiles:
    """The prompts and seeds of a run: packaged files, or the user's in place of them.

    Each file is read once; a run sees one version of it.

    Attributes:
        prompts: folder of the user's prompts; None for packaged ones alone.
        seeds: likewise of seeds.
    """

    prompts: Path | None = None
    seeds: Path | None = None
    _parsed: dict[tuple[str, str], Any] = field(default_factory=dict, compare=False, repr=False)

    def prompt(self, name: str) -> PromptTemplate:
        """Read the template `name`.

        Raises:
            ConfigError: no such file, or it is not a prompt, or it has not the slots and the reply
                of the packaged prompt that it replaces; the text names file and field.
        """
        if ("prompts", name) not in self._parsed:
            where, data = _read("prompts", self.prompts, name)
            prompt = _parse_prompt(where, name, data)
            packaged = files("generators") / "prompts" / f"{name}.yaml"
            if self.prompts is not None and packaged.is_file():
                original = _parse_prompt(f"prompts/{name}.yaml", name, packaged.read_bytes())
                _check_slots(where, slots_of(prompt.user), slots_of(original.user))
                _check_reply(where, prompt.reply, original.reply)
            self._parsed["prompts", name] = prompt
        return cast(PromptTemplate, self._parsed["prompts", name])

    def seeds_by_category(self, name: str) -> dict[str, list[str]]:
        """Read seeds of the file `name`: category → seeds, in file order."""
        where, seeds = self._seeds(name)
        if not isinstance(seeds, dict) or not seeds or not all(map(_is_texts, seeds.values())):
            raise ConfigError(
                f"{where}: expected categories, each with a list of texts (none empty)."
            )
        return seeds

    def seed_list(self, name: str) -> list[str]:
        """Read the texts of the file `name`, in file order."""
        where, items = self._seeds(name)
        if not _is_texts(items):
            raise ConfigError(f"{where}: expected a list of texts (none empty).")
        return cast(list[str], items)

    def parsed_seeds(self, name: str, parse: Callable[[str, Any], T]) -> T:
        """Parse the seeds file `name`, once.

        Args:
            name: of the file.
            parse: given where the file lies and its content as plain values.
        """
        if ("parsed", name) not in self._parsed:
            self._parsed["parsed", name] = parse(*self._seeds(name))
        return cast(T, self._parsed["parsed", name])

    def _seeds(self, name: str) -> tuple[str, Any]:
        if ("seeds", name) not in self._parsed:
            where, data = _read("seeds", self.seeds, name)
            self._parsed["seeds", name] = where, _parse_seeds(data, where)
        where, parsed = self._parsed["seeds", name]
        return where, parsed

    def digests(self, *, prompts: tuple[str, ...], seeds: tuple[str, ...]) -> dict[str, str]:
        """Compute the sha256 of each file named, under `prompts/NAME` and `seeds/NAME`.

        Raises:
            ConfigError: a file is not there, replaces none, or is not what it replaces: found
                before anything is asked.
        """
        _check_names("prompts", self.prompts, prompts)
        _check_names("seeds", self.seeds, seeds)
        found = {f"prompts/{name}": self.prompt(name).digest for name in sorted(prompts)}
        for name in sorted(seeds):
            where, data = _read("seeds", self.seeds, name)
            self._check_seeds(where, name)
            found[f"seeds/{name}"] = hashlib.sha256(data).hexdigest()
        return found

    def _check_seeds(self, where: str, name: str) -> None:
        """Check that the user's seeds are laid out as the packaged ones that they replace."""
        packaged = files("generators") / "seeds" / f"{name}.yaml"
        if self.seeds is None or not packaged.is_file():
            return
        original = parse_yaml(packaged.read_bytes(), where)
        if _is_texts(original):
            self.seed_list(name)
        elif isinstance(original, dict) and all(map(_is_texts, original.values())):
            self.seeds_by_category(name)


@lru_cache(maxsize=32)
def _parse_seeds(data: bytes, where: str) -> Any:
    """Parse seeds, which no reader changes; all runs of a process share them."""
    return parse_yaml(data, where, "texts that are asked with")


@lru_cache(maxsize=64)
def _parse_prompt(where: str, name: str, data: bytes) -> PromptTemplate:
    fields = parse_yaml(data, where, "texts that are asked with")
    if not isinstance(fields, dict):
        raise ConfigError(f"{where}: expected a mapping with system, user, examples, reply.")
    if wrong := sorted(set(_FIELDS) ^ set(fields)):
        raise ConfigError(
            f"{where}: field {wrong[0]!r} is {'missing' if wrong[0] in _FIELDS else 'unknown'}; "
            f"a prompt has {sorted(_FIELDS)}."
        )
    for field_name, kind in _FIELDS.items():
        if type(fields[field_name]) is not kind:
            raise ConfigError(f"{where}: {field_name}: expected a {kind.__name__}.")
    try:
        examples = tuple((dict(e["fill"]), dict(e["reply"])) for e in fields["examples"])
    except (TypeError, KeyError, ValueError) as error:
        raise ConfigError(f"{where}: each of `examples` needs `fill` and `reply`.") from error
    prompt = PromptTemplate(
        name=name,
        digest=hashlib.sha256(data).hexdigest(),
        system=fields["system"].strip(),
        user=fields["user"].strip(),
        examples=examples,
        reply=fields["reply"],
        max_tokens=fields["max_tokens"],
    )
    try:
        slots = slots_of(prompt.user)
        Draft202012Validator.check_schema(prompt.schema)
    except ConfigError as error:
        raise ConfigError(f"{where}: user: {error}") from error
    except SchemaError as error:
        raise ConfigError(f"{where}: reply: no JSON schema ({error.message}).") from error
    if prompt.max_tokens < 1:
        raise ConfigError(f"{where}: max_tokens: got {prompt.max_tokens}, expected 1 or more.")
    if unfilled := sorted(_text_slots(prompt.system)):
        raise ConfigError(
            f"{where}: system: {{{{{unfilled[0]}}}}} is never filled here, only in `user`. Move it "
            "there, or write it without braces."
        )
    _check_examples(where, prompt, slots)
    return prompt


def _text_slots(text: str) -> frozenset[str]:
    """Return the slots of a text that is sent as it is; none where it is no template."""
    try:
        return slots_of(text)
    except ConfigError:
        return frozenset()


def _check_examples(where: str, prompt: PromptTemplate, slots: frozenset[str]) -> None:
    # a slot that no example fills is filled by the code: the verdicts of a rubric
    filled = {name for values, _ in prompt.examples for name in values}
    for place, (values, reply) in enumerate(prompt.examples):
        if wrong := sorted(set(values) ^ (slots & filled)):
            raise ConfigError(
                f"{where}: examples[{place}].fill: {wrong[0]!r} does not match the slots of "
                f"`user`, {sorted(slots)}."
            )
        if wrong := [name for name, value in values.items() if not isinstance(value, str)]:
            raise ConfigError(
                f"{where}: examples[{place}].fill.{wrong[0]}: got {values[wrong[0]]!r}, expected a "
                "text (in quotes)."
            )
        if fault := best_match(Draft202012Validator(prompt.schema).iter_errors(dict(reply))):
            raise ConfigError(
                f"{where}: examples[{place}].reply: does not fit `reply` ({fault.message})."
            )


def _check_reply(where: str, own: Mapping[str, Any], packaged: Mapping[str, Any]) -> None:
    for name, rule in packaged.items():
        given = own.get(name)
        for part in ("type", "enum"):
            wanted = rule.get(part)
            found = given.get(part) if isinstance(given, dict) else None
            if wanted is not None and wanted != found:
                raise ConfigError(
                    f"{where}: reply: {name!r} is "
                    + (f"{{{part}: {found}}}" if name in own else "missing")
                    + f"; expected {{{part}: {wanted}}}, as of the prompt that it replaces."
                )


def _check_names(folder: str, own: Path | None, used: tuple[str, ...]) -> None:
    """Check that each YAML file of the user's folder replaces a packaged one, or is used."""
    if own is None or not own.is_dir():
        return
    packaged = {path.name for path in (files("generators") / folder).iterdir()}
    known = packaged | {f"{name}.yaml" for name in used}
    for path in sorted(own.iterdir()):
        if path.suffix in (".yaml", ".yml") and path.name not in known:
            near = difflib.get_close_matches(path.name, known, n=1)
            raise ConfigError(
                f"generate.{folder}: {path}: replaces no packaged file; "
                + (f"did you mean {near[0]}?" if near else f"expected any of {sorted(known)}.")
            )


def _check_slots(where: str, own: frozenset[str], packaged: frozenset[str]) -> None:
    if wrong := sorted(own ^ packaged):
        state = "is no slot of" if wrong[0] in own else "is missing in"
        raise ConfigError(
            f"{where}: user: {{{{{wrong[0]}}}}} {state} this prompt; expected exactly "
            f"{', '.join(f'{{{{{name}}}}}' for name in sorted(packaged))}."
        )


def _read(folder: str, own: Path | None, name: str) -> tuple[str, bytes]:
    if own is not None:
        if not own.is_dir():
            raise ConfigError(f"generate.{folder}: {own} is not a folder; expected YAML files.")
        path = own / f"{name}.yaml"
        if path.is_file():
            return str(path), path.read_bytes()
    packaged = files("generators") / folder / f"{name}.yaml"
    if not packaged.is_file():
        raise ConfigError(
            f"generate.{folder}: found no {name}.yaml, neither packaged nor in that folder."
        )
    return f"{folder}/{name}.yaml", packaged.read_bytes()


def _is_texts(items: Any) -> bool:
    return (
        isinstance(items, list)
        and bool(items)
        and all(isinstance(item, str) and item.strip() for item in items)
    )
