"""Experiment files: YAML that is read into a frozen model, or refused in one line."""

from __future__ import annotations

import difflib
import json
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError, model_validator

from activation_store.layout.config import DumpSection, known_by_number
from activation_store.target.config import CompleteConfig
from activation_store.target.number_format import resolve_section
from core.config import Config
from core.documents.yaml_values import parse_yaml, read_yaml
from core.errors import ConfigError
from core.runtime import Runtime
from core.text.redact import places_of_credentials, redact, redact_override, redact_value
from core.text.wording import shortened, unreadable
from evaluators.config import EvaluateConfig
from evaluators.control.config import ControlSection
from evaluators.robustness.config import RobustnessConfig
from evaluators.tasks.config import TasksConfig
from generators.exchange.config import DataSection
from generators.making.config import GenerateSection
from generators.quality.config import QualitySection
from pipelines.experiment.schedule_config import ScheduleSection
from pipelines.experiment.sweep_config import SweepSection
from trainers.config import TrainConfig

SOURCES = ("data", "generate")
"""Sections of which an experiment has exactly one: where its rows come from."""


class Experiment(Config):
    """An experiment file; each section belongs to the package that uses it."""

    experiment: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=200)
    """Name: lower-case letters, digits, `_` and `-`."""
    data: DataSection | None = None
    """Files to import."""
    generate: GenerateSection | None = None
    """Rows that an LLM writes; together with `data`, only questions (`data.rows.questions:
    written`)."""
    complete: CompleteConfig | None = None
    """The target's own replies to the stimuli; null for none."""
    quality: QualitySection | None = None
    """A check of the rows: what is flagged, measured and dropped; null for none."""
    dump: DumpSection = DumpSection()
    """The target, and which of its activations are stored."""
    train: TrainConfig = TrainConfig()
    """The decoder and its training."""
    evaluate: EvaluateConfig = EvaluateConfig()
    """What is measured, and how."""
    robustness: RobustnessConfig | None = None
    """Alterations under which the decoder is tested; null for none."""
    tasks: TasksConfig | None = None
    """Reading tasks with known answers, on which other methods are compared; null for none."""
    control: ControlSection | None = None
    """Controls that the target is steered towards, and how the replies are evaluated; null for
    none."""
    sweep: SweepSection | None = None
    """Settings that `latentqa sweep` varies; never hashed."""
    schedule: ScheduleSection | None = None
    """What `latentqa serve` runs on a schedule; never hashed."""
    runtime: Runtime = Runtime()
    """Device and other settings that do not change results; never hashed."""

    @model_validator(mode="after")
    def _one_source(self) -> Experiment:
        given = [name for name in SOURCES if getattr(self, name) is not None]
        written = self.data is not None and self.data.rows.questions == "written"
        if written and self.data is not None and self.data.format != "conversations":
            raise ValueError(
                "data.rows.questions: got written with data.format latentqa, expected "
                "data.format conversations, because the published files already have "
                "questions"
            )
        if written and self.generate is None:
            raise ValueError(
                "data.rows.questions: got written without a section generate, expected one "
                "with the endpoint that writes them"
            )
        if written and self.generate and "conversations" in self.generate.model_fields_set:
            raise ValueError(
                "generate.conversations: got one together with data.rows.questions "
                "written, expected none, because the conversations come from data"
            )
        if len(given) != 1 and not written:
            raise ValueError(
                f"expected exactly one of the sections {', '.join(SOURCES)}, "
                f"got {', '.join(given) or 'none'}"
            )
        return self

    @model_validator(mode="after")
    def _holds_no_key(self) -> Experiment:
        if place := next(places_of_credentials(self.model_dump(mode="json")), None):
            raise ValueError(
                f"{place}: holds what looks like a key or a password, and experiments are kept in "
                "records; export it as a variable that generate.endpoint.api_key_env names"
            )
        return self

    @model_validator(mode="after")
    def _shares_have_holders(self) -> Experiment:
        if self.runtime.sharding == "full" and (self.runtime.processes or 1) == 1:
            raise ValueError(
                "runtime.sharding: got full with one process, expected runtime.processes "
                "of at least 2"
            )
        return self

    @model_validator(mode="after")
    def _read_layer_is_stored(self) -> Experiment:
        stored, read = self.dump.layers, self.train.decoder.read_layer
        several = self.train.decoder.read_layers
        if several:
            if not set(several) <= set(stored) and known_by_number((*several, *stored)):
                raise ValueError(
                    f"train.decoder.read_layers: got {list(several)}, expected some of dump.layers "
                    f"{list(stored)}"
                )
            return self
        if read is None and len(stored) > 1:
            raise ValueError(
                f"train.decoder.read_layer: got null, expected one of dump.layers {list(stored)}"
            )
        if read is not None and read not in stored and known_by_number((read, *stored)):
            raise ValueError(
                f"train.decoder.read_layer: got {read}, expected one of dump.layers {list(stored)}"
            )
        return self


def resolve_number_formats(experiment: Experiment) -> Experiment:
    """Return an experiment whose number formats are those of this machine and `runtime.device`."""
    sections = ("complete", "dump", "train", "evaluate", "robustness", "tasks", "control")
    given = {name: getattr(experiment, name) for name in sections}
    return experiment.model_copy(
        update={
            name: resolve_section(section, experiment.runtime)
            for name, section in given.items()
            if section is not None
        }
    )


def load_experiment(
    path: Path, overrides: Sequence[str] = (), *, axes: Sequence[str] = (), option: str = "--vary"
) -> Experiment:
    """Read an experiment file.

    Args:
        path: a YAML file.
        overrides: `a.b=c`, each a field's dotted path and its value in YAML; they win.
        axes: the same of one point of a sweep; they win over the others.
        option: where the axes are from, for error messages.

    Raises:
        ConfigError: one line that names file (or override), field, what was found and expected.
    """
    try:
        text = read_yaml(path)
    except FileNotFoundError as error:
        beside = sorted(p.stem for p in path.parent.glob("*.yaml"))
        near = difflib.get_close_matches(path.stem, beside, n=1)
        hint = ". `latentqa init` writes one to begin with; --list has the packaged ones."
        if near:
            hint = f"; did you mean {path.with_name(near[0] + '.yaml')}?"
        raise ConfigError(f"{path}: no such experiment file{hint}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(unreadable(path, error)) from error
    tree = parse_yaml(text, str(path))
    if not isinstance(tree, dict):
        raise ConfigError(
            f"{path}: got {_a(tree)}, expected a mapping of sections "
            f"({', '.join(Experiment.model_fields)})."
        )
    given = [("--set", override) for override in overrides] + [(option, axis) for axis in axes]
    return _build(tree, str(path), given)


def build_experiment(
    tree: dict[str, Any], source: str, overrides: Sequence[str] = ()
) -> Experiment:
    """Build an experiment from its sections as plain values.

    Args:
        tree: the sections; overrides are written into it.
        source: where they are from, for error messages.
        overrides: as in `load_experiment`.

    Raises:
        ConfigError: one line that names source (or override), field, what was found and expected.
    """
    return _build(tree, source, [("--set", override) for override in overrides])


def _build(tree: dict[str, Any], source: str, given: Sequence[tuple[str, str]]) -> Experiment:
    """Build an experiment from its sections and overrides, each with the option that it is from."""
    origins: dict[tuple[str, ...], str] = {}
    for option, override in given:
        shown = f"{option} {redact_override(override)}"
        origins[_apply(tree, override, shown)] = shown
    try:
        # JSON mode: strict types (no "8" for 8, no true for 1), yet lists for tuples
        return Experiment.model_validate_json(json.dumps(tree), strict=True)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        # an unknown field explains a missing one better than the other way round
        problem = min(problems, key=lambda p: p["type"] != "extra_forbidden")
        raise ConfigError(redact(_words(dict(problem), source, origins))) from error


def _apply(tree: dict[str, Any], override: str, shown: str) -> tuple[str, ...]:
    """Set one dotted field in `tree`; return its path, or that of the section made for it."""
    name, equals, text = override.partition("=")
    path = tuple(name.strip().split("."))
    if not equals or not all(path):
        raise ConfigError(f"{shown}: expected FIELD=VALUE, such as train.lora.rank=8.")
    node, made = tree, path
    for i, part in enumerate(path[:-1]):
        if node.get(part) is None:
            node[part] = {}
            made = path[: min(len(made), i + 1)]
        node = node[part]
        if not isinstance(node, dict):
            at = ".".join(path[: i + 1])
            raise ConfigError(
                f"{shown}: {at} is {_a(redact_value(node, part))}, not a section; set {at} itself."
            )
    node[path[-1]] = parse_yaml(text, shown)
    return made


def _words(problem: Mapping[str, Any], source: str, origins: Mapping[tuple[str, ...], str]) -> str:
    path, model, annotation = _locate(problem["loc"])
    dotted = ".".join(path)
    for start, origin in origins.items():
        if path[: len(start)] == start:
            source = origin
    if problem["type"] == "extra_forbidden":
        return f"{source}: unknown field {dotted}; {_suggest(path, model)}"
    if problem["type"] == "json_invalid":  # what was read as YAML can be invalid in one way
        return f"{source}: its values are nested too deeply."
    if problem["type"] == "missing":
        return f"{source}: field {dotted} is missing; expected {describe_annotation(annotation)}."
    message = str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] == "value_error":
        return f"{source}: {dotted + ': ' if dotted else ''}{message.rstrip('.')}."
    got = _shown_value(path, problem["input"])
    limit = ""
    if problem["type"].startswith(("greater_than", "less_than", "string_pattern", "too_")):
        limit = f" ({message[0].lower()}{message[1:]})"
    near = ""
    allowed = _allowed(annotation)
    if isinstance(problem["input"], str) and allowed:
        close = difflib.get_close_matches(problem["input"], allowed, n=1)
        near = f" Did you mean {close[0]}?" if close else ""
    return (
        f"{source}: {dotted}: got {got}, expected {describe_annotation(annotation)}{limit}.{near}"
    )


def _shown_value(path: Sequence[str], value: Any) -> str:
    """Spell a wrong value for an error, unless it may be a key in the wrong place."""
    if isinstance(value, dict):
        return "a section"
    may_be_key = isinstance(value, str) and (len(value) >= 16 or ":" in value)
    if {"api_key_env", "extra_headers"} & {*path} or (may_be_key and "endpoint" in path):
        return "another value"
    return shortened(json.dumps(redact_value(value, path[-1] if path else ""), ensure_ascii=False))


def _locate(loc: Sequence[int | str]) -> tuple[tuple[str, ...], type[BaseModel], Any]:
    """Return a field's dotted path, the model that it belongs to, and its annotation.

    pydantic puts the tried branches of a union into the place; they are no fields.
    """
    model: type[BaseModel] = Experiment
    annotation: Any = Experiment
    keys: Any = None
    path: list[str] = []
    for part in loc:
        inner = _model_of(annotation)
        if inner is not None:
            model = inner
            path.append(str(part))
            if part not in inner.model_fields:
                return tuple(path), inner, None
            annotation = inner.model_fields[str(part)].annotation
        elif part == "[key]":
            annotation = keys
        elif isinstance(part, int) or _is_mapping(annotation):
            path.append(str(part))
            keys, annotation = _types_inside(annotation)
    return tuple(path), model, annotation


def _suggest(path: Sequence[str], model: type[BaseModel]) -> str:
    name, prefix = path[-1], ".".join(path[:-1])
    names = list(model.model_fields)
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f"did you mean {prefix + '.' if prefix else ''}{close[0]}?"
    elsewhere = [p for p in _all_paths(Experiment) if p.rpartition(".")[2] == name]
    if elsewhere:
        return f"did you mean {elsewhere[0]}?"
    return f"fields of {prefix or 'an experiment'}: {', '.join(sorted(names))}."


def _all_paths(model: type[BaseModel], prefix: str = "") -> list[str]:
    found = []
    for name, field in model.model_fields.items():
        found.append(prefix + name)
        inner = _model_of(field.annotation)
        if inner is not None:
            found.extend(_all_paths(inner, f"{prefix}{name}."))
    return found


def annotation_branches(annotation: Any) -> list[Any]:
    """List the alternatives of a field's type; one where it is no union."""
    if typing.get_origin(annotation) is typing.Annotated:
        return annotation_branches(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [b for arg in typing.get_args(annotation) for b in annotation_branches(arg)]
    return [annotation]


def _model_of(annotation: Any) -> type[BaseModel] | None:
    for branch in annotation_branches(annotation):
        if isinstance(branch, type) and issubclass(branch, BaseModel):
            return branch
    return None


def _is_mapping(annotation: Any) -> bool:
    return any(typing.get_origin(branch) is dict for branch in annotation_branches(annotation))


def _types_inside(annotation: Any) -> tuple[Any, Any]:
    """Return the types of a mapping's keys and values; of a list, None and its items' type."""
    for branch in annotation_branches(annotation):
        if typing.get_origin(branch) is dict:
            keys, values = typing.get_args(branch)
            return keys, values
        if typing.get_origin(branch) in (tuple, list):
            return None, typing.get_args(branch)[0]
    return None, None


def _allowed(annotation: Any) -> list[str]:
    return [
        str(value)
        for branch in annotation_branches(annotation)
        if typing.get_origin(branch) is typing.Literal
        for value in typing.get_args(branch)
    ]


def describe_annotation(annotation: Any) -> str:
    """Say in words which values a field of this type takes."""
    words = []
    for branch in annotation_branches(annotation):
        if typing.get_origin(branch) is typing.Literal:
            words.append("one of " + ", ".join(map(str, typing.get_args(branch))))
        elif typing.get_origin(branch) in (tuple, list):
            words.append("a list, each item " + describe_annotation(typing.get_args(branch)[0]))
        elif isinstance(branch, type) and issubclass(branch, BaseModel):
            words.append("a section with " + ", ".join(branch.model_fields))
        elif typing.get_origin(branch) is dict:
            words.append("a section")
        else:
            words.append(_PLAIN.get(branch, "a value"))
    return " or ".join(words)


_PLAIN: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    type(None): "null",
}


def _a(value: Any) -> str:
    names = {dict: "a section", list: "a list", type(None): "nothing"}
    return names.get(type(value)) or shortened(json.dumps(value, ensure_ascii=False))
