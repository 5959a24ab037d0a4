"""The base of every config: a frozen pydantic model that refuses unknown keys."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

LARGEST_WHOLE = 2**31 - 1
LARGEST = 1e9
"""Largest numbers of a field that names no bound of its own; libraries take no larger ones."""


_SAID = {"extra_forbidden": "unknown field", "missing": "this field is missing"}


def first_problem(error: ValidationError, *places: str) -> str:
    """Name one wrong field of a file, and say what is wrong; an unknown one before a missing one.

    Args:
        error: of pydantic.
        places: names of the places in the file around what was validated.
    """
    first = min(error.errors(include_url=False), key=lambda own: own["type"] != "extra_forbidden")
    said = _SAID.get(first["type"]) or first["msg"].removeprefix("Value error, ").rstrip(".")
    where = ".".join(map(str, (*places, *first["loc"])))
    return f"{where}: {said}" if where else said


class Config(BaseModel):
    """Frozen pydantic model; unknown keys are refused (pipelines/experiment/config.py words the
    error).

    A config holds what decides a result, and nothing else. How fast or where it is computed
    belongs to `core.runtime.Runtime`, which is never hashed.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        hide_input_in_errors=True,  # it may be a key in the wrong place
    )

    def with_changes(self, **changes: Any) -> Self:
        """Return a copy with some fields changed; the copy is checked as a new config is.

        Raises:
            pydantic.ValidationError: a changed field is wrong, or does not go with the others.
        """
        return type(self).model_validate({**dict(self), **changes})

    def each_text(self) -> Iterator[str]:
        """Yield every text in the config, however deep; not the names of its fields."""
        pending: list[Any] = [self.model_dump(mode="json")]
        while pending:
            value = pending.pop()
            if isinstance(value, str):
                yield value
            elif isinstance(value, dict):
                pending += value.values()
            elif isinstance(value, list):
                pending += value

    @model_validator(mode="after")
    def _within_bounds(self) -> Self:
        for name, field in type(self).model_fields.items():
            if name == "seed" or "Any" in str(field.annotation):
                continue  # any seed is hashed; what is passed on is for others to judge
            for number in _numbers(getattr(self, name)):
                most = LARGEST_WHOLE if isinstance(number, int) else LARGEST
                if not abs(number) <= most:
                    raise ValueError(f"{name}: got {number}, expected a number up to {most:,.0f}")
        return self


def _numbers(value: Any) -> Iterator[int | float]:
    """Yield the numbers of a field's value: itself, or those in it."""
    items = value.values() if isinstance(value, dict) else value
    for item in items if isinstance(value, dict | tuple) else (value,):
        if isinstance(item, int | float) and not isinstance(item, bool):
            yield item
