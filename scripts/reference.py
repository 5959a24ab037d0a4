"""Write the reference pages that follow from the code: commands, config fields, the JSON Schema.

python scripts/reference.py            writes docs/commands.md, docs/config.md and the schema
python scripts/reference.py --check    exit 1 where one of them is not as the code says
"""

from __future__ import annotations

import argparse
import inspect
import sys
import textwrap
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from latentqa.cli import app
from latentqa.commands.experiments.init import SCHEMA_FILE, schema_text
from pipelines.experiment.config import Experiment, annotation_branches, describe_annotation

_TYPES = {int: "N", float: "X", Path: "PATH"}
CHECKOUT = Path(__file__).parents[1]


def main(arguments: list[str]) -> int:
    """Write the pages, or compare them with the code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where stale")
    check = parser.parse_args(arguments).check
    stale = [path for path, text in pages().items() if not same(path, text)]
    for path in stale:
        name = path.relative_to(CHECKOUT)
        print(f"{name}: not as the code says; run python scripts/reference.py" if check else name)
        if not check:
            path.write_text(pages()[path], encoding="utf-8")
    return 1 if check and stale else 0


def pages() -> dict[Path, str]:
    """Make the text of each page from the code."""
    return {
        CHECKOUT / "docs" / "commands.md": commands_page(),
        CHECKOUT / "docs" / "config.md": config_page(),
        CHECKOUT / "experiments" / SCHEMA_FILE: schema_text(),
    }


def same(path: Path, text: str) -> bool:
    """Compare a page on disk with `text`."""
    return path.is_file() and path.read_text(encoding="utf-8") == text


def commands_page() -> str:
    """Write every command with its arguments and options, from their help texts."""
    parts = [
        "# Commands",
        "Written by `python scripts/reference.py` from the help texts, which `--help` prints as "
        "well. `--install-completion` installs shell completion.",
    ]
    parts += list(_family(typer.main.get_command(app), ["latentqa"]))
    return "\n\n".join(parts) + "\n"


def _family(command: Any, names: list[str]) -> Iterator[str]:
    if hasattr(command, "commands"):
        if len(names) == 1:
            options = [p for p in command.params if "completion" not in p.name]
            yield _options([*options])
        for name, inner in command.commands.items():
            yield from _family(inner, [*names, name])
        return
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option"]
    words = [_argument(argument) for argument in arguments]
    yield f"## {' '.join([*names, *words])}"
    yield inspect.cleandoc(command.help or "")
    yield _options([*arguments, *options])


def _argument(parameter: Any) -> str:
    name = str(parameter.metavar or parameter.name.upper()).strip("[]{}")
    return name if parameter.required else f"[{name}]"


def _options(parameters: list[Any]) -> str:
    rows = [f"| {_spelling(p)} | {_cell(p.help or '')}{_default(p)} |" for p in parameters]
    return "\n".join(["| | |", "|---|---|", *rows])


def _spelling(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{_argument(parameter)}`"
    name = max(parameter.opts, key=len)
    if parameter.is_flag:
        return f"`{name}`"
    (kind, *_) = annotation_branches(parameter.type_descriptor.annotation)
    choices = typing.get_args(kind) if typing.get_origin(kind) is typing.Literal else ()
    value = parameter.metavar or "|".join(choices) or _TYPES.get(kind, "TEXT")
    return _cell(f"`{name} {value}`")


def _default(parameter: Any) -> str:
    if parameter.required:
        return " Required." if parameter.param_type_name == "option" else ""
    shown, default = parameter.show_default, parameter.default
    if isinstance(shown, str):
        return f" Default: {shown}."
    if default is None or default is False or default == [] or callable(default):
        return ""
    return f" Default: `{default}`."


def config_page() -> str:
    """Write every field of an experiment file, from the config models."""
    parts = [
        "# Fields of an experiment file",
        "Written by `python scripts/reference.py` from the config models. `latentqa init` writes a "
        "commented file to start from; `latentqa schema` prints the JSON Schema with which editors "
        "complete and check fields. An unknown field is an error that names the nearest one.",
    ]
    parts += list(_section(Experiment, "", "An experiment", {}))
    return "\n\n".join(parts) + "\n"


def _section(
    model: type[BaseModel], prefix: str, title: str, written: dict[type[BaseModel], str]
) -> Iterator[str]:
    """Write a model's table, then those of the models inside it; each model once.

    Args:
        model: of the section.
        prefix: of its fields' names.
        title: of the section.
        written: title of each model whose table is written; models are added.
    """
    yield f"## {title}"
    if model in written:
        yield f"{_prose(model.__doc__ or '')} Its fields are those of {written[model]}."
        return
    written[model] = title
    if prefix:
        yield _prose(model.__doc__ or "")
    rows, inner = [], []
    for name, field in model.model_fields.items():
        nested = _models(field.annotation)
        expected = _type(field)
        rows.append(
            f"| `{name}` | {_cell(expected)} | {_field_default(field)} | "
            f"{_cell(_prose(field.description or ''))} |"
        )
        inner += [(one, f"{prefix}{name}{mark}") for one, mark in nested]
    yield "\n".join(["| field | value | default | |", "|---|---|---|---|", *rows])
    for one, path in inner:
        yield from _section(one, f"{path}.", f"`{path}`", written)


def _models(annotation: Any) -> list[tuple[type[BaseModel], str]]:
    """List the models that a field's value may be, with what stands after its name in a path."""
    found: list[tuple[type[BaseModel], str]] = []
    for branch in annotation_branches(annotation):
        if isinstance(branch, type) and issubclass(branch, BaseModel):
            found.append((branch, ""))
            continue
        arguments = getattr(branch, "__args__", ())
        mark = ".NAME" if getattr(branch, "__origin__", None) is dict else "[]"
        for argument in arguments:
            found += [(one, mark + more) for one, more in _models(argument)]
    return found


def _type(field: FieldInfo) -> str:
    words = describe_annotation(field.annotation)
    if "section with" in words:
        null = " or null" if words.endswith("or null") else ""
        words = f"a section, below{null}"
    limits = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<", "min_length": "at least"}
    bounds = [
        f"{sign} {getattr(one, name)}"
        for one in field.metadata
        for name, sign in limits.items()
        if getattr(one, name, None) is not None
    ]
    return words + (f", {' and '.join(bounds)}" if bounds else "")


def _field_default(field: FieldInfo) -> str:
    default = field.get_default(call_default_factory=True)
    if default is PydanticUndefined:
        return "required"
    if isinstance(default, BaseModel):
        return ""
    if default is None:
        return "null"
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, (tuple, list)):
        return f"`[{', '.join(map(str, default))}]`"
    if isinstance(default, dict):
        return "`{}`" if not default else "a section"
    return f"`{default}`"


def _prose(text: str) -> str:
    """Put a docstring's paragraphs on one line each."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return " ".join(textwrap.fill(p.replace("\n", " "), width=10_000) for p in paragraphs)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
