"""What a decoder is bound to: its settings, the layer and the target that it reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from activation_store.model_files.files import ModelFiles
from core.documents.strict_json import load_json
from core.errors import ModelError, StoreError, first_line
from core.files import read_file
from decoder.config import DecoderConfig

SIDECAR = "latentqa.json"
"""File beside a saved adapter that holds config and binding."""
SCHEMA = 2


@dataclass(frozen=True, kw_only=True)
class Binding:
    """The layer and the target that a decoder reads.

    Attributes:
        read_layer: block, counted from 0, at whose output the activations were taken; of several
            (`config.read_layers`) the first.
        target: digests of the target.
        model: the reference under which the target was found when the decoder was made.
        adapter: likewise the target's own adapter, or None.
        template: settings of the target's chat template that are not its own (`TemplateConfig`).
    """

    read_layer: int
    target: dict[str, str]
    model: str
    adapter: str | None = None
    template: dict[str, Any] = field(default_factory=dict)


def read_sidecar(folder: Path) -> tuple[DecoderConfig, Binding]:
    """Read config and binding of a saved decoder.

    Raises:
        ModelError: `folder` holds no decoder, or one that this version cannot read.
    """
    path = folder / SIDECAR
    try:
        value = load_json(read_file(path))
        if value.pop("schema") != SCHEMA:
            raise ValueError(f"expected schema {SCHEMA}")
        return DecoderConfig.model_validate(value.pop("decoder")), Binding(**value)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ModelError(f"decoder {folder}: no decoder is here (no {SIDECAR}).") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{path}: not the record of a decoder of this version ({first_line(error)})."
        ) from error


def check_target(binding: Binding, model: ModelFiles) -> None:
    """Refuse a model that the decoder was not trained to read.

    Raises:
        StoreError: names the first difference, both sides.
    """
    found = model.digests()
    for name in sorted(binding.target.keys() | found.keys()):
        if binding.target.get(name) != found.get(name):
            raise StoreError(
                f"decoder: it reads the target {binding.model}, whose {name} is "
                f"{str(binding.target.get(name))[:24]}; model {model.ref} has "
                f"{str(found.get(name))[:24]}. Give the decoder's own target, or train a new one."
            )
