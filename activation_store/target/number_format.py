"""The number format in which models run: the one rule behind `auto`.

`auto` is bfloat16 on a GPU that computes in it, and float32 elsewhere. The resolved format is part
of a step's identity, so that a store computed on a GPU is not taken for one computed on a CPU.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel

from core.config import Config
from core.runtime import Runtime

ComputeDtype = Literal["auto", "float32", "bfloat16", "float16"]
C = TypeVar("C", bound=BaseModel)

_DRIVERS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
"""What a GPU's driver (CUDA, ROCm, WSL) leaves on Linux: without one, torch need not be loaded."""


class ComputeConfig(Config):
    """The number format of a step that runs models."""

    compute_dtype: ComputeDtype = "auto"
    """Number format in which models run. `auto` is bfloat16 on a GPU that supports it and float32
    elsewhere; float32 on a GPU is multiplied as TF32."""


def resolve_dtype(dtype: str, runtime: Runtime) -> str:
    """Return the dtype that `dtype` stands for on the device of `runtime`."""
    if dtype != "auto":
        return dtype
    return "bfloat16" if _has_bfloat16(runtime.device) else "float32"


def resolve_section(section: C, runtime: Runtime) -> C:
    """Return a config section whose `compute_dtype` or `precision` is no longer `auto`."""
    changes = {
        name: resolve_dtype(getattr(section, name), runtime)
        for name in ("compute_dtype", "precision")
        if hasattr(section, name)
    }
    return section.model_copy(update=changes)


def _has_bfloat16(device: str) -> bool:
    if device != "auto" and not device.startswith("cuda"):
        return False
    if sys.platform == "linux" and not any(Path(driver).exists() for driver in _DRIVERS):
        return False
    import torch

    return torch.cuda.is_available() and torch.cuda.is_bf16_supported()
