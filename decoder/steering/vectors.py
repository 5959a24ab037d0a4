"""Steering vectors: one direction a layer, added to the target's activations without a decoder.

A vector is an ordinary safetensors file: a tensor `layer_K` [D] float32 for each block K, in the
activations' own unit, and metadata that say of which model and how it was made.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from core.errors import ModelError, first_line
from core.files import write_bytes

_PREFIX = "layer_"
_FORMAT = "latentqa steering vector 1"


@dataclass(frozen=True, kw_only=True, slots=True)
class SteeringVector:
    """Steering vectors, one a block, with the target they belong to.

    Attributes:
        layers: by block, counted from 0, what is added at its output, [D] float32 at strength 1.
        method: how it was made.
        target: digests of the target whose activations it is of.
        about: other facts of its making: controls, prompts.
    """

    layers: Mapping[int, torch.Tensor]
    method: str
    target: Mapping[str, str] = field(default_factory=dict)
    about: Mapping[str, str] = field(default_factory=dict)

    def scaled(self, strength: float) -> SteeringVector:
        """Return the vector times `strength`."""
        return replace(
            self,
            layers={block: strength * vector for block, vector in self.layers.items()},
            about={**self.about, "strength": f"{strength:g}"},
        )

    def save(self, path: Path) -> None:
        """Write it as a safetensors file."""
        facts = {"target": dict(self.target), "about": dict(self.about)}
        metadata = {"format": _FORMAT, "method": self.method, "facts": json.dumps(facts)}
        tensors = {
            f"{_PREFIX}{block}": vector.detach().float().cpu().contiguous()
            for block, vector in self.layers.items()
        }
        write_bytes(path, save(tensors, metadata))

    @classmethod
    def load(cls, path: Path) -> SteeringVector:
        """Read what `save` wrote.

        Raises:
            ModelError: it is no such file.
        """
        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != _FORMAT:
                    raise ValueError(f"format {metadata.get('format')!r}, expected {_FORMAT!r}")
                facts = json.loads(metadata["facts"])
                vector = cls(
                    layers={
                        int(name.removeprefix(_PREFIX)): file.get_tensor(name)
                        for name in file.keys()  # noqa: SIM118 - safetensors' own type
                    },
                    method=metadata["method"],
                    target=facts["target"],
                    about=facts["about"],
                )
                if not all(torch.isfinite(values).all() for values in vector.layers.values()):
                    raise ValueError("it holds numbers that are not finite")
                return vector
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            raise ModelError(
                f"steering vector {path}: not one, or damaged ({first_line(error)}); expected a "
                "file that `latentqa steer --by vector --out` wrote."
            ) from error

    def check_target(self, target: Mapping[str, str]) -> None:
        """Refuse a target that the vector was not made for.

        Raises:
            ModelError: its weights differ, both sides named.
        """
        own, other = self.target.get("weights"), target.get("weights")
        if own and other and own != other:
            raise ModelError(
                f"steering vector: made for a target with weights {own[:24]}, but this "
                f"target has {other[:24]}. Make it again for this target."
            )
