"""A GGUF file becomes a folder in transformers' layout, once, in the cache."""

from __future__ import annotations

import contextlib
import fcntl
import io
import shutil
from pathlib import Path

from activation_store.digests import cache_folder, file_digest
from activation_store.model_files import CONVERSION
from activation_store.quiet import first_line, quiet_libraries
from generators.errors import ModelError
from generators.files import fsync_dir, fsync_tree, storage_errors


def convert(path: Path) -> Path:
    """Folder with float32 safetensors, config, tokenizer and chat template of a GGUF file.

    Takes most of a minute the first time; a second process waits for the first. The folder is
    renamed into place when all of it is synced, so that half of it is never taken for whole.

    Raises:
        ModelError: the package `gguf` is missing, or the file cannot be read.
        StorageError: the cache's disk is full.
    """
    folder = cache_folder() / "models" / f"{file_digest(path)[:16]}-{CONVERSION}"
    if folder.is_dir():
        return folder
    with storage_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with open(folder.with_suffix(".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.is_dir():
                partial = folder.with_suffix(".partial")
                shutil.rmtree(partial, ignore_errors=True)
                _write(path, partial)
                fsync_tree(partial)
                partial.rename(folder)
                fsync_dir(folder.parent)
    return folder


def _write(path: Path, out: Path) -> None:
    try:
        import gguf  # noqa: F401  (transformers reads GGUF files through it)
    except ImportError as error:
        raise ModelError(
            f"model {path}: reading a GGUF file needs the package gguf. "
            "Install it with `pip install 'latentqa[local]'`."
        ) from error
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    # the reader draws a progress bar of its own, which no setting of transformers reaches
    with quiet_libraries(), contextlib.redirect_stderr(io.StringIO()):
        try:
            tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
            model = AutoModelForCausalLM.from_pretrained(
                path.parent,
                gguf_file=path.name,
                dtype=torch.float32,
                quantization_config=GgufConfig(dequantize=True),
            )
        except Exception as error:  # a broken file fails anywhere in the reader, in any way
            raise ModelError(
                f"model {path}: transformers cannot read this GGUF file ({first_line(error)}). "
                "Use a safetensors folder of the same model."
            ) from error
        model.config.architectures = [type(model).__name__]
        model.save_pretrained(out)
        tokenizer.save_pretrained(out)
