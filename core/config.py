"""Every config derives from one frozen, closed base."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """Frozen pydantic model; unknown keys are refused (pipelines/experiment/config.py words the
    error).

    A config holds what decides a result, and nothing else. How fast or where it is computed
    belongs to `core.runtime.Runtime`, which is never hashed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
