"""Every config derives from one frozen, closed base."""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """Frozen pydantic model; unknown keys are refused (pipelines/experiment/config.py words the
    error).

    A config holds what decides a result, and nothing else. How fast or where it is computed
    belongs to `core.runtime.Runtime`, which is never hashed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    def with_changes(self, **changes: Any) -> Self:
        """Return a copy with some fields changed; the copy is checked as a new config is.

        Raises:
            pydantic.ValidationError: a changed field is wrong, or does not go with the others.
        """
        return type(self).model_validate({**dict(self), **changes})
