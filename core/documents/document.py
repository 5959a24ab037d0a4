"""Typed JSON documents that steps write and pages read."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from core.config import first_problem
from core.errors import DamagedError


class Document(BaseModel):
    """A frozen pydantic model that is written as JSON; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    def to_json(self) -> dict[str, Any]:
        """Return the document as plain JSON types."""
        return self.model_dump(mode="json")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the document from a file of an artifact.

        Raises:
            FileNotFoundError: there is no such file.
            DamagedError: it holds something else.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise DamagedError(
                f"{path}: not in the format of this version ({first_problem(error)}). Delete its "
                "artifact and run again.",
                path,
            ) from error
