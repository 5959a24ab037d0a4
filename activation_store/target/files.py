"""Where a model reference points, and the digests that say which model it is.

A reference is `embedded`, a local folder, a GGUF file, or a Hugging Face id with an optional
revision (`org/name@revision`). Nothing here imports torch: an all-hit run asks for digests alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from activation_store.target import embedded_model as embedded
from activation_store.target.file_digests import file_digest, files_digest
from activation_store.target.gguf import CONVERSION, convert
from core.errors import ModelError, first_line

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
_TOKENIZER = (
    *("tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json", "added_tokens.json"),
    *("*.model", "*.tiktoken"),
)
_TEMPLATE = ("chat_template*",)
_ADAPTER_WEIGHTS = ("adapter_model*",)
# a hub that cannot be reached says so in seconds, not after minutes
_HUB_SECONDS = 5
_EXPECTED = {
    "model": "expected a folder, a .gguf file, a Hugging Face id (org/name@revision) or `embedded`",
    "adapter": "expected a folder or a Hugging Face id (org/name@revision)",
}


@dataclass(frozen=True, kw_only=True)
class ModelFiles:
    """A model found on disk.

    Attributes:
        ref: the reference as the user wrote it.
        source: folder in transformers' layout, or a GGUF file.
        adapter: folder of a PEFT adapter that is part of the model, or None.
    """

    ref: str
    source: Path
    adapter: Path | None = None

    @property
    def is_gguf(self) -> bool:
        """Whether `source` is a GGUF file, which is converted before its first use."""
        return self.source.is_file()

    def digests(self) -> dict[str, str]:
        """What this model is: `weights`, `config`, `tokenizer`, `chat_template`, `adapter`.

        A GGUF file holds all of them; its digest and the conversion's version stand for it.
        """
        if self.is_gguf:
            out = {"weights": f"gguf:{CONVERSION}:{file_digest(self.source)}"}
        else:
            out = {
                "weights": files_digest(_match(self.source, _WEIGHTS)),
                "config": file_digest(self.source / "config.json"),
                "tokenizer": files_digest(_match(self.source, _TOKENIZER)),
            }
            if template := _match(self.source, _TEMPLATE):
                out["chat_template"] = files_digest(template)
        if self.adapter is not None:
            out["adapter"] = files_digest(
                _match(self.adapter, ("adapter_config.json", *_ADAPTER_WEIGHTS))
            )
        return out

    @cached_property
    def folder(self) -> Path:
        """Folder that transformers loads; converts a GGUF file into the cache at its first use."""
        if not self.is_gguf:
            return self.source

        return convert(self.source)


def resolve_model(ref: str, adapter: str | None = None) -> ModelFiles:
    """Find the model that `ref` names.

    Args:
        ref: `embedded`, a folder, a GGUF file, or a Hugging Face id (`org/name@revision`).
        adapter: folder or id of a PEFT adapter, or None.

    Raises:
        ModelError: nothing is there, or what is there is not a model.
    """
    return ModelFiles(
        ref=ref,
        source=_find_model(ref),
        adapter=_find_folder(adapter, "adapter", "adapter_config.json") if adapter else None,
    )


def public_name(ref: str) -> str:
    """`ref` without the folders of this machine: what may stand in a file that others get."""
    path = Path(ref).expanduser()
    return path.name if path.is_absolute() or path.exists() else ref


def _find_model(ref: str) -> Path:
    if ref == "embedded":
        return embedded.gguf_path()
    path = Path(ref).expanduser()
    if path.is_file() and path.suffix == ".gguf":
        return path
    return _find_folder(ref, "model", "config.json")


def _find_folder(ref: str, what: str, needed: str) -> Path:
    path = Path(ref).expanduser()
    if path.is_file():
        raise ModelError(f"{what} {ref}: {_EXPECTED[what]}, got a file.")
    if not path.is_dir():
        if path.is_absolute() or not _HUB_ID.fullmatch(ref) or ref.startswith("."):
            raise ModelError(f"{what} {ref}: nothing is there; {_EXPECTED[what]}.")
        path = _from_hub(ref, what)
    if not (path / needed).is_file():
        raise ModelError(f"{what} {ref}: the folder has no {needed}; is it the right one?")
    if not _match(path, _WEIGHTS if what == "model" else _ADAPTER_WEIGHTS):
        raise ModelError(f"{what} {ref}: the folder holds no weights (*.safetensors).")
    return path


def _from_hub(ref: str, what: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    name, _, revision = ref.partition("@")
    patterns = [*_WEIGHTS, *_TOKENIZER, *_TEMPLATE, "*.json"]
    try:
        return Path(
            snapshot_download(
                name,
                revision=revision or None,
                allow_patterns=patterns,
                etag_timeout=_HUB_SECONDS,
            )
        )
    except LocalEntryNotFoundError as error:
        raise ModelError(
            f"{what} {ref}: no such folder here, and the Hugging Face hub cannot be reached. "
            "Check the path or the network."
        ) from error
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise ModelError(
            f"{what} {ref}: no such folder here, and the Hugging Face hub refused it "
            f"({first_line(error)}). Check the name, the revision, and HF_TOKEN for a gated model."
        ) from error


def _match(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    found = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    return sorted(found)
