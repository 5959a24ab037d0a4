"""Where a model reference points, and the digests that say which model it is.

A reference is `embedded`, a local folder, a GGUF file, or a Hugging Face id with an optional
revision (`org/name@revision`). Nothing here imports torch: an all-hit run asks for digests alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from activation_store.model_files import embedded_model as embedded
from activation_store.model_files.file_digests import file_digest, file_digests
from activation_store.model_files.gguf import CONVERSION, convert, is_converted
from activation_store.tokens.config import TemplateConfig
from core.documents.canonical import digest
from core.documents.strict_json import load_json
from core.errors import ModelError, first_line
from core.files import read_file

ADAPTER_CONFIG = "adapter_config.json"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
_TOKENIZER = (
    *("tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json", "added_tokens.json"),
    *("*.model", "*.tiktoken"),
)
_TEMPLATE = ("chat_template*", "additional_chat_templates/*")
_NOT_FETCHED = [
    *("consolidated*", "*.onnx", "*.msgpack", "*.h5"),
    *("[!a]*/*", "a/*", "a[!d]*/*", "ad/*", "ad[!d]*/*"),
]
"""Copies of the weights for other programs, and all folders but `additional_chat_templates`."""
_EMBEDDINGS = {"embed_tokens", "lm_head", "wte", "embed_in", "embed_out", "word_embeddings"}
"""Names of embeddings and heads, which may share their weights."""
_EMBEDDINGS_MERGE = "2"
"""How an adapter of an embedding or a head is merged: into that one alone. Before, where the two
shared their weights, it was merged into both, and what was computed so is another model's."""
_RECOMPUTED = dict.fromkeys(("minicpm3", "minimax", "recurrent_gemma", "rwkv"), "2")
"""Types of models whose first blocks, or whose replies in a batch, were computed wrongly before:
what is computed now has keys of its own."""
_HUB_SECONDS = 5
"""A hub that cannot be reached says so in seconds, not after minutes."""
_EXPECTED = {
    "model": "expected a folder, a .gguf file, a Hugging Face id (org/name@revision) or `embedded`",
    "adapter": "expected a folder or a Hugging Face id (org/name@revision)",
}


@dataclass(frozen=True, kw_only=True)
class ModelFiles:
    """A model found on disk, and how conversations are written for it.

    Attributes:
        ref: the reference as the user wrote it.
        source: folder in transformers' layout, or a GGUF file.
        adapter: folder of a PEFT adapter that is part of the model, or None.
        template: how its chat template writes conversations.
        trust_remote_code: whether Python files of the model's folder may run.
    """

    ref: str
    source: Path
    adapter: Path | None = None
    template: TemplateConfig = field(default_factory=TemplateConfig)
    trust_remote_code: bool = False

    @property
    def is_gguf(self) -> bool:
        """Whether `source` is a GGUF file, which is converted before its first use."""
        return self.source.is_file()

    @property
    def tokenizer_folder(self) -> Path:
        """Folder of the tokenizer and chat template: the adapter's, where it has its own."""
        return self._adapter_tokenizer or self.folder

    @property
    def _adapter_tokenizer(self) -> Path | None:
        has_own = self.adapter is not None and _match(self.adapter, ("tokenizer*",))
        return self.adapter if has_own else None

    def digests(self) -> dict[str, str]:
        """Return what this model is: digests of weights, config, tokenizer, template and adapter.

        They are those of the first call; `check_unchanged` compares the files with them. A GGUF
        file holds all but the adapter; its digest and the conversion's version stand for it.
        Settings of the template and the folder's code are among them where there are any.
        """
        return dict(self._digests)

    @cached_property
    def _digests(self) -> dict[str, str]:
        return self._read_digests()

    def expect(self, digests: Mapping[str, str]) -> None:
        """Take these digests as the model's, such as those that another process found first."""
        self.__dict__["_digests"] = dict(digests)

    def check_unchanged(self) -> None:
        """Compare the model's files with what they were when `digests` was first called.

        Only files whose size, times or inode changed are read again.

        Raises:
            ModelError: a file has other bytes, so that results would be another model's.
        """
        now = self._read_digests()
        for name in sorted(now.keys() | self._digests.keys()):
            if now.get(name) != self._digests.get(name):
                raise ModelError(
                    f"model {self.ref}: its {name} changed on disk while it was in use "
                    f"({str(self._digests.get(name))[:12]}… before, {str(now.get(name))[:12]}… "
                    "now). Run again: results are then filed under the model that is there."
                )
        if self.is_gguf and "folder" in self.__dict__ and not is_converted(self.source):
            raise ModelError(
                f"model {self.ref}: its conversion {self.folder} changed on disk while it was in "
                "use. Run again: it is then converted anew."
            )

    def paths(self) -> list[Path]:
        """Return the files that the model is made of, those of a GGUF file's conversion too."""
        found = [path for own in self._parts().values() for path in own]
        if self.is_gguf and "folder" in self.__dict__:
            found += self.folder.iterdir()
        return found

    def _read_digests(self) -> dict[str, str]:
        parts = self._parts()
        out = {name: digest(file_digests(own)) for name, own in parts.items() if name != "config"}
        if self.is_gguf:
            out["weights"] = f"gguf:{CONVERSION}:{file_digest(self.source)}"
        else:
            out["config"] = file_digest(*parts["config"])
            if run := _RECOMPUTED.get(str(read_model_json(*parts["config"]).get("model_type"))):
                out["run"] = run
        if self.adapter is not None and _adapts_embeddings(self.adapter):
            out["adapter_merge"] = _EMBEDDINGS_MERGE
        if self.template != TemplateConfig():
            out["template_settings"] = digest(self.template.model_dump(mode="json"))
        return out

    def _parts(self) -> dict[str, list[Path]]:
        """Return the files of each part of the model, by the part's name in the digests."""
        out = {"weights": [self.source] if self.is_gguf else weight_files(self.source)}
        if not self.is_gguf:
            out["config"] = [self.source / "config.json"]
        if (tokenizer := self._adapter_tokenizer) is not None or not self.is_gguf:
            folder = tokenizer or self.source
            out["tokenizer"] = _match(folder, _TOKENIZER)
            if template := _match(folder, _TEMPLATE):
                out["chat_template"] = template
        if self.adapter is not None:
            out["adapter"] = [self.adapter / ADAPTER_CONFIG, *_adapter_weight_files(self.adapter)]
            if tokenizer is None and (template := _match(self.adapter, ("chat_template.jinja",))):
                out["adapter_template"] = template
        if self.trust_remote_code and (code := _match(self.source, ("*.py",))):
            out["code"] = code
        return out

    @cached_property
    def folder(self) -> Path:
        """Folder that transformers loads; a GGUF file is converted into the cache for it."""
        return convert(self.source) if self.is_gguf else self.source


def resolve_model(
    ref: str,
    adapter: str | None = None,
    *,
    template: TemplateConfig | None = None,
    trust_remote_code: bool = False,
) -> ModelFiles:
    """Find the model that `ref` names.

    Args:
        ref: `embedded`, a folder, a GGUF file, or a Hugging Face id (`org/name@revision`).
        adapter: folder or id of a PEFT adapter, or None.
        template: how its chat template writes conversations; None for the template's own way.
        trust_remote_code: whether Python files of the model's folder may run.

    Raises:
        ModelError: nothing is there, or what is there is not a model.
    """
    return ModelFiles(
        ref=ref,
        source=_find_model(ref),
        adapter=_find_folder(adapter, "adapter", ADAPTER_CONFIG) if adapter else None,
        template=template or TemplateConfig(),
        trust_remote_code=trust_remote_code,
    )


def public_name(ref: str) -> str:
    """Return `ref` without the folders of this machine, for files that others get."""
    path = Path(ref).expanduser()
    return path.name if path.is_absolute() or path.exists() else ref


def weight_files(folder: Path) -> list[Path]:
    """Return the files that transformers loads weights from, and no duplicates in other formats.

    Safetensors come first: those that an index names, a single file, or any but `consolidated*`
    (which other programs read). Pickled weights count only where there are none.
    """
    if safetensors := _named_weights(folder, "model.safetensors"):
        return safetensors
    others = _match(folder, ("*.safetensors",))
    if found := [p for p in others if not p.name.startswith(("consolidated", "adapter_"))]:
        return found
    return _named_weights(folder, "pytorch_model.bin") or _match(folder, ("pytorch_model*.bin",))


def read_model_json(path: Path) -> dict[str, Any]:
    """Read a JSON file of a model's folder; empty where there is none.

    Raises:
        ModelError: it is not a JSON object.
    """
    try:
        value = load_json(read_file(path))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ModelError(f"{path}: not JSON ({first_line(error)}).") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path}: expected a JSON object, got {type(value).__name__}.")
    return value


def _named_weights(folder: Path, name: str) -> list[Path]:
    """Return the single file of this name, or an index of it with the files that it names."""
    index = folder / f"{name}.index.json"
    if (folder / name).is_file():
        return [folder / name]
    if not index.is_file():
        return []
    places = read_model_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(one, str) for one in places.values()):
        raise ModelError(f"{index}: expected a weight_map of names to files. Fetch it again.")
    files = [index.parent / name for name in sorted(set(places.values()))]
    if missing := [file.name for file in files if not file.is_file()]:
        raise ModelError(f"{index}: it names {missing[0]}, which is not there. Fetch it again.")
    return [index, *files]


def _adapter_weight_files(folder: Path) -> list[Path]:
    found = _match(folder, ("adapter_model*.safetensors",))
    return found or _match(folder, ("adapter_model*.bin",))


def _adapts_embeddings(adapter: Path) -> bool:
    """Tell whether an adapter names an embedding or a head among what it adapts."""
    config = read_model_json(adapter / ADAPTER_CONFIG)
    fields = (config.get(name) for name in ("target_modules", "modules_to_save"))
    names = [name for own in fields if isinstance(own, list) for name in own]
    return any(str(name).rsplit(".", 1)[-1] in _EMBEDDINGS for name in names)


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
    if what == "model" and (path / ADAPTER_CONFIG).is_file():
        # transformers would load the adapter's base, whatever weights stand beside it
        raise ModelError(
            f"model {ref}: the folder holds a PEFT adapter ({ADAPTER_CONFIG}). Set "
            "dump.adapter to this folder and dump.model to the adapter's base model. To "
            "use the weights in the folder without the adapter, move the adapter away."
        )
    if not (path / needed).is_file():
        if (path / "snapshots").is_dir():
            raise ModelError(
                f"{what} {ref}: the folder is of the hub's cache. Name one of those in its "
                "snapshots, or the repository's id."
            )
        raise ModelError(f"{what} {ref}: the folder has no {needed}; is it the right one?")
    if not (weight_files(path) if what == "model" else _adapter_weight_files(path)):
        raise ModelError(f"{what} {ref}: the folder holds no weights (*.safetensors).")
    return path


def _from_hub(ref: str, what: str) -> Path:
    """Fetch what is loaded of a repository: safetensors, or pickled weights where it has none."""
    weights = _WEIGHTS if what == "model" else ("adapter_model*.safetensors", "adapter_model*.bin")
    folder = _snapshot(ref, what, weights[0])
    has_weights = weight_files(folder) if what == "model" else _adapter_weight_files(folder)
    return folder if has_weights else _snapshot(ref, what, weights[1])


def _snapshot(ref: str, what: str, weights: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    name, _, revision = ref.partition("@")
    try:
        return Path(
            snapshot_download(
                name,
                revision=revision or None,
                allow_patterns=[weights, *_TOKENIZER, *_TEMPLATE, "*.json", "*.py"],
                ignore_patterns=_NOT_FETCHED,
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
