"""Conversions of a GGUF file, kept in the cache: a folder for transformers, a file to serve."""

from __future__ import annotations

import contextlib
import fcntl
import io
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from activation_store.model_files.file_digests import cache_folder, file_digest, file_digests
from activation_store.model_files.quiet import quiet_libraries
from core.documents.strict_json import load_json
from core.errors import ModelError, first_line
from core.files import (
    file_states,
    find_replaced,
    fsync_dir,
    fsync_tree,
    read_file,
    storage_errors,
    write_json,
)

CONVERSION = 1
"""Raised when the same GGUF would be converted into other numbers."""
SERVED = "q8_0-1"
"""The form of the served copy; raised when the same file would become other weights."""
SERVED_FILE = "model.gguf"
_DIGESTS = "digests.json"
"""Digests of a conversion's files, by name."""
_LOG = logging.getLogger(__name__)


def convert(path: Path) -> Path:
    """Convert a GGUF file to a folder: float32 safetensors, config, tokenizer and chat template.

    Takes most of a minute the first time; a second process waits for the first. The folder is
    renamed into place when all of it is synced, so that half of it is never taken for whole.

    Raises:
        ModelError: the package `gguf` is missing, or the file cannot be read.
        StorageError: the cache's disk is full.
    """
    return _made_once(path, _conversion(path), _write_folder)


def is_converted(path: Path) -> bool:
    """Return whether the folder that `convert` makes is there, with the bytes that were written."""
    return _is_whole(_cached(_conversion(path)))


def read_header(path: Path) -> tuple[Any, bool]:
    """Read what a GGUF file says of its model, without its weights.

    Returns:
        The config as transformers has it, and whether there is a chat template.

    Raises:
        ModelError: the package `gguf` is missing, or transformers cannot read the file.
    """
    from transformers import AutoConfig
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    with _reading(path):
        found: Any = load_gguf_checkpoint(str(path), return_tensors=False)  # type: ignore[no-untyped-call]
        config = AutoConfig.for_model(**found["config"])
        return config, bool(found["tokenizer_config"].get("chat_template"))


def served(path: Path) -> Path:
    """Convert a GGUF file to one with weights of 8 bits, with which a CPU's server is fastest.

    llama.cpp has no fast kernels on x86 for the 4-bit type Q4_1: in 8 bits (Q8_0, 32 weights to a
    scale) a request takes 0.6 of the time, and the weights differ by less than 1/250 of their
    block's largest. Takes some seconds the first time.

    Raises:
        ModelError: the package `gguf` is missing, or the file cannot be read.
        StorageError: the cache's disk is full.
    """
    folder = _made_once(path, f"{file_digest(path)[:16]}-{SERVED}", _write_served)
    return folder / SERVED_FILE


def served_identity(path: Path) -> str:
    """Return what decides the bytes of `served(path)`, without making it."""
    return f"{SERVED}:{file_digest(path)}"


def _conversion(path: Path) -> str:
    return f"{file_digest(path)[:16]}-{CONVERSION}"


def _cached(name: str) -> Path:
    return cache_folder() / "models" / name


def _made_once(path: Path, name: str, write: Callable[[Path, Path], None]) -> Path:
    """Return the cached conversion of this name; make it if it is missing or damaged."""
    folder = _cached(name)
    if _is_whole(folder):
        return folder
    with storage_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with open(folder.with_suffix(".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not _is_whole(folder):
                _LOG.warning(
                    "model %s: making a copy that loads in a second, once; about a minute for "
                    "500 MB.",
                    path,
                )
                partial = folder.with_suffix(".partial")
                shutil.rmtree(partial, ignore_errors=True)
                states = file_states([path])
                write(path, partial)
                if find_replaced(states) or not name.startswith(file_digest(path)[:16]):
                    raise ModelError(
                        f"model {path}: changed on disk while it was converted. Run again."
                    )
                write_json(partial / _DIGESTS, file_digests(_files(partial)))
                fsync_tree(partial)
                shutil.rmtree(folder, ignore_errors=True)
                partial.rename(folder)
                fsync_dir(folder.parent)
    return folder


def _is_whole(folder: Path) -> bool:
    """Return whether a conversion has the files and bytes that were written."""
    try:
        known = load_json(read_file(folder / _DIGESTS))
        return bool(file_digests(_files(folder)) == known)
    except (FileNotFoundError, ValueError):
        return False


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_file() and p.name != _DIGESTS)


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Have transformers read a GGUF file in silence, or refuse the file in one line."""
    _need_gguf(path)
    # the reader draws a progress bar of its own, which no setting of transformers reaches
    with quiet_libraries(), contextlib.redirect_stderr(io.StringIO()):
        try:
            yield
        except Exception as error:  # a broken file fails anywhere in the reader, in any way
            raise ModelError(
                f"model {path}: transformers cannot read this GGUF file ({first_line(error)}). "
                "Use a safetensors folder of the same model."
            ) from error


def _write_folder(path: Path, out: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    with _reading(path):
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
        model = AutoModelForCausalLM.from_pretrained(
            path.parent,
            gguf_file=path.name,
            dtype=torch.float32,
            quantization_config=GgufConfig(dequantize=True),
        )
    with quiet_libraries():
        model.config.architectures = [type(model).__name__]
        model.save_pretrained(out)
        tokenizer.save_pretrained(out)


def _write_served(path: Path, out: Path) -> None:
    _need_gguf(path)
    import gguf
    import numpy as np
    from gguf.quants import dequantize, quantize

    kind = gguf.GGMLQuantizationType.Q8_0
    try:
        reader = gguf.GGUFReader(path)
        fields = {name: field for name, field in reader.fields.items() if "GGUF." not in name}
        out.mkdir(parents=True)
        writer = gguf.GGUFWriter(out / SERVED_FILE, fields.pop("general.architecture").contents())
        fields.pop("general.file_type", None)
        writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
        for name, field in fields.items():
            writer.add_key_value(
                name,
                field.contents(),
                field.types[0],
                sub_type=field.types[-1] if len(field.types) > 1 else None,
            )
        for tensor in reader.tensors:
            weights = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
            if weights.ndim > 1:
                writer.add_tensor(tensor.name, quantize(weights, kind), raw_dtype=kind)
            else:  # norms and biases: few, and read in full precision
                writer.add_tensor(tensor.name, weights)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    except OSError:
        raise
    except Exception as error:  # as above
        raise ModelError(
            f"model {path}: this GGUF file cannot be read ({first_line(error)}). "
            "Use another copy of the model."
        ) from error


def _need_gguf(path: Path) -> None:
    try:
        import gguf  # noqa: F401  (transformers too reads GGUF files through it)
    except ImportError as error:
        raise ModelError(
            f"model {path}: reading a GGUF file needs the package gguf. "
            "Install it with `pip install 'latentqa[local]'`."
        ) from error
