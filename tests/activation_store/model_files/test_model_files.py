"""Model references, and the digests that say which model one is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import stores
import tiny
from pydantic import ValidationError

from activation_store.model_files import file_digests as digests_module
from activation_store.model_files import gguf
from activation_store.model_files.file_digests import cache_folder, file_digest, file_digests
from activation_store.model_files.files import ModelFiles, public_name, resolve_model, weight_files
from activation_store.tokens.config import TemplateConfig
from core.errors import ModelError
from core.files import sha256_file


@pytest.fixture
def folder(model: ModelFiles, tmp_path: Path) -> Path:
    """Return the tiny model's folder, of the test's own."""
    return shutil.copytree(model.source, tmp_path / "model")


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """Return a folder that looks like a PEFT adapter."""
    path = tmp_path / "adapter"
    path.mkdir()
    (path / "adapter_config.json").write_text("{}")
    (path / "adapter_model.safetensors").write_bytes(b"weights")
    return path


def test_a_folder_is_a_model(folder: Path) -> None:
    found = resolve_model(str(folder))
    assert found.source == found.folder == folder
    assert not found.is_gguf
    assert sorted(found.digests()) == ["chat_template", "config", "tokenizer", "weights"]


def test_the_home_folder_is_expanded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    assert resolve_model("~/model").source == folder


@pytest.mark.parametrize("name", ["weights.gguf", "WEIGHTS.gguf"])
def test_a_gguf_file_is_a_model_whose_digest_stands_for_all(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(b"GGUF and more")
    found = resolve_model(str(path))
    assert found.is_gguf
    assert found.digests() == {"weights": f"gguf:1:{sha256_file(path)}"}


def test_the_path_is_no_part_of_the_digests(folder: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(folder, tmp_path / "moved")
    assert resolve_model(str(moved)).digests() == resolve_model(str(folder)).digests()


@pytest.mark.parametrize(
    ("file", "part"),
    [
        ("model.safetensors", "weights"),
        ("config.json", "config"),
        ("tokenizer.json", "tokenizer"),
        ("tokenizer_config.json", "tokenizer"),
        ("chat_template.jinja", "chat_template"),
    ],
)
def test_digests_change_if_and_only_if_bytes_change(file: str, part: str, folder: Path) -> None:
    before = resolve_model(str(folder)).digests()
    data = (folder / file).read_bytes()
    (folder / file).write_bytes(data)  # the same bytes at another time
    assert resolve_model(str(folder)).digests() == before
    (folder / file).write_bytes(data + b" ")
    after = resolve_model(str(folder)).digests()
    assert [name for name in before if before[name] != after[name]] == [part]


def test_files_that_decide_nothing_change_no_digest(folder: Path) -> None:
    before = resolve_model(str(folder)).digests()
    (folder / "README.md").write_text("a model")
    (folder / "generation_config.json").write_text("{}")
    assert resolve_model(str(folder)).digests() == before


def test_weights_in_several_files_are_those_that_the_index_names(folder: Path) -> None:
    for i in (1, 2, 3):
        shutil.copy(folder / "model.safetensors", folder / f"part{i}.safetensors")
    (folder / "model.safetensors").unlink()
    index = folder / "model.safetensors.index.json"
    index.write_text(
        json.dumps({"weight_map": {"a": "part2.safetensors", "b": "part1.safetensors"}})
    )
    assert [file.name for file in weight_files(folder)] == [
        "model.safetensors.index.json",
        "part1.safetensors",
        "part2.safetensors",
    ]
    (folder / "part2.safetensors").unlink()
    with pytest.raises(ModelError, match=r"it names part2.safetensors, which is not there"):
        weight_files(folder)


@pytest.mark.parametrize(
    "copy", ["pytorch_model.bin", "consolidated.safetensors", "consolidated.00.pth", "model.onnx"]
)
def test_copies_in_other_formats_are_not_digested(copy: str, folder: Path) -> None:
    before = resolve_model(str(folder)).digests()
    (folder / copy).write_bytes(b"others")
    assert resolve_model(str(folder)).digests() == before


def test_pickled_weights_count_where_there_are_no_others(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    (folder / "training_args.bin").write_bytes(b"")
    assert [file.name for file in weight_files(folder)] == ["pytorch_model.bin"]


def test_a_folder_with_an_adapter_beside_its_weights_is_refused(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")
    assert "holds a PEFT adapter (adapter_config.json). Set dump.adapter to this folder" in refusal(
        str(folder)
    )


def test_weights_that_are_replaced_with_size_and_time_kept_are_another_model(folder: Path) -> None:
    before = resolve_model(str(folder)).digests()
    stores.flip(folder / "model.safetensors")
    assert resolve_model(str(folder)).digests()["weights"] != before["weights"]


def test_weights_that_change_while_a_model_is_in_use_are_an_error(folder: Path) -> None:
    found = resolve_model(str(folder))
    found.digests()
    found.check_unchanged()
    stores.flip(folder / "model.safetensors")
    with pytest.raises(ModelError, match="its weights changed on disk while it was in use"):
        found.check_unchanged()


def test_a_conversion_that_changes_while_it_is_in_use_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(path: Path, out: Path) -> None:
        out.mkdir()
        (out / "model.safetensors").write_bytes(b"weights")

    monkeypatch.setenv("LATENTQA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(gguf, "_write_folder", write)
    (tmp_path / "own.gguf").write_bytes(b"GGUF")
    found = resolve_model(str(tmp_path / "own.gguf"))
    weights = found.folder / "model.safetensors"
    found.check_unchanged()
    stores.flip(weights)
    with pytest.raises(ModelError, match=r"its conversion .* changed on disk"):
        found.check_unchanged()
    assert (resolve_model(found.ref).folder / weights.name).read_bytes() == b"weights"


def test_an_adapter_brings_its_own_tokenizer(folder: Path, adapter: Path) -> None:
    plain = resolve_model(str(folder), str(adapter))
    assert plain.tokenizer_folder == folder
    before = plain.digests()
    tiny.tokenizer(tiny.LLAMA3).save_pretrained(adapter)
    own = resolve_model(str(folder), str(adapter))
    assert own.tokenizer_folder == adapter
    assert own.digests()["tokenizer"] != before["tokenizer"]


def test_settings_of_the_template_are_part_of_the_model(folder: Path) -> None:
    plain = resolve_model(str(folder)).digests()
    args = TemplateConfig(template_args={"enable_thinking": False})
    assert resolve_model(str(folder), template=TemplateConfig()).digests() == plain
    found = resolve_model(str(folder), template=args).digests()
    assert {k: v for k, v in found.items() if k != "template_settings"} == plain


@pytest.mark.parametrize("name", ["tools", "messages", "add_generation_prompt"])
def test_arguments_that_are_not_the_templates_are_refused(name: str) -> None:
    with pytest.raises(ValidationError, match=f"'{name}' is set by this program"):
        TemplateConfig(template_args={name: True})


def test_a_hub_model_fetches_pickled_weights_only_where_it_has_no_others(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def download(name: str, *, allow_patterns: list[str], **options: object) -> str:
        asked.append(allow_patterns[0])
        if "bin" in allow_patterns[0]:
            (folder / "pytorch_model.bin").write_bytes(b"w")
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    resolve_model("org/name")
    assert asked == ["*.safetensors"]
    (folder / "model.safetensors").unlink()
    resolve_model("org/name")
    assert asked[1:] == ["*.safetensors", "pytorch_model*.bin"]


def test_a_hub_model_fetches_named_templates_and_no_copies_of_weights(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub.utils._paths import filter_repo_objects

    wanted = ["config.json", "model.safetensors", "additional_chat_templates/tool_use.jinja"]
    copies = ["onnx/config.json", "consolidated.safetensors", "original/x.safetensors"]
    copies += ["adapters/model.safetensors", "a/b.json", "model.onnx", "tf_model.h5"]
    fetched: list[str] = []

    def download(name: str, *, allow_patterns: Any, ignore_patterns: Any, **options: Any) -> str:
        patterns = {"allow_patterns": allow_patterns, "ignore_patterns": ignore_patterns}
        fetched.extend(filter_repo_objects([*wanted, *copies], **patterns))
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    resolve_model("org/name")
    assert fetched == wanted


@pytest.mark.parametrize(
    ("file", "content"),
    [("adapter_model.safetensors", "others"), ("adapter_config.json", '{"lora_alpha": 99}')],
)
def test_an_adapter_is_part_of_the_model(
    file: str, content: str, folder: Path, adapter: Path
) -> None:
    plain = resolve_model(str(folder)).digests()
    with_it = resolve_model(str(folder), str(adapter)).digests()
    assert {k: v for k, v in with_it.items() if k != "adapter"} == plain
    (adapter / file).write_text(content)
    assert resolve_model(str(folder), str(adapter)).digests()["adapter"] != with_it["adapter"]


def refusal(*arguments: str) -> str:
    with pytest.raises(ModelError) as caught:
        resolve_model(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_not_there_says_what_is_expected(tmp_path: Path, folder: Path) -> None:
    for ref in (str(tmp_path / "nothing"), "./nothing/here", "nothing", "a/b/c"):
        text = refusal(ref)
        assert text.startswith(f"model {ref}: nothing is there; expected a folder, a .gguf file")
    assert "adapter nothing: nothing is there; expected" in refusal(str(folder), "nothing")


def test_a_folder_without_a_config_is_refused(tmp_path: Path) -> None:
    assert refusal(str(tmp_path)) == (
        f"model {tmp_path}: the folder has no config.json; is it the right one?"
    )


def test_a_folder_without_weights_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert refusal(str(folder)) == (f"model {folder}: the folder holds no weights (*.safetensors).")


def test_another_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(b"x")
    assert refusal(str(path)).endswith("got a file.")


def test_an_adapter_without_its_parts_is_refused(folder: Path, adapter: Path) -> None:
    (adapter / "adapter_model.safetensors").unlink()
    assert "the folder holds no weights" in refusal(str(folder), str(adapter))
    (adapter / "adapter_config.json").unlink()
    assert "the folder has no adapter_config.json" in refusal(str(folder), str(adapter))


def test_no_model_is_an_adapter(folder: Path) -> None:
    assert "adapter embedded: nothing is there" in refusal(str(folder), "embedded")
    assert "the folder has no adapter_config.json" in refusal(str(folder), str(folder))


@pytest.mark.parametrize("ref", ["nobody/nothing", "nobody/nothing@main"])
def test_a_hub_that_cannot_be_reached_is_one_line_within_seconds(ref: str, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom activation_store.model_files.files import resolve_model\n"
        "try: resolve_model(sys.argv[1])\nexcept Exception as e: print(type(e).__name__, e)"
    )
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code, ref],
        capture_output=True,
        text=True,
        # a port where nobody listens
        env={**os.environ, "HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9"},
        cwd=Path(__file__).parents[3],
    )
    assert time.monotonic() - start < 30
    assert done.stdout.splitlines() == [
        f"ModelError model {ref}: no such folder here, and the Hugging Face hub cannot be reached. "
        "Check the path or the network."
    ]
    assert done.stderr == ""


def test_a_snapshot_without_weights_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "model.safetensors").unlink()
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *a, **k: str(folder))
    assert refusal("org/name") == "model org/name: the folder holds no weights (*.safetensors)."


def test_a_hub_id_takes_its_revision_along(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(name: str, **options: object) -> str:
        asked.append((name, options["revision"]))
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert resolve_model("org/name@v1.0/x").folder == folder
    resolve_model("org/name")
    assert asked == [("org/name", "v1.0/x"), ("org/name", None)]


def test_a_hub_that_refuses_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(name: str, **options: object) -> str:
        raise ValueError("")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert "hub refused it (ValueError). Check the name" in refusal("org/name")


@pytest.mark.parametrize(
    ("ref", "name"),
    [
        ("embedded", "embedded"),
        ("org/name@v1", "org/name@v1"),
        ("/models/tiny", "tiny"),
        ("~/nothing.gguf", "nothing.gguf"),
    ],
)
def test_a_public_name_has_no_folder_of_this_machine(ref: str, name: str) -> None:
    assert public_name(ref) == name


def test_a_relative_folder_has_a_public_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "me" / "tiny").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert public_name("me/tiny") == "tiny"


class Hashed:
    """Which files were read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.paths: list[str] = []

        def counted(path: Path) -> str:
            self.paths.append(path.name)
            return sha256_file(path)

        monkeypatch.setattr(digests_module, "sha256_file", counted)


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LATENTQA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_digest_is_remembered(
    own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, hashed = tmp_path / "a.bin", Hashed(monkeypatch)
    path.write_bytes(b"one")
    time.sleep(0.03)
    assert file_digest(path) == file_digest(path) == sha256_file(path)
    assert hashed.paths == ["a.bin"]


def test_a_digest_is_not_remembered_within_a_tick_of_the_file_systems_clock(
    own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"one")
    monkeypatch.setattr(time, "time_ns", lambda: path.stat().st_ctime_ns)
    hashed = Hashed(monkeypatch)
    assert file_digest(path) == file_digest(path)
    assert len(hashed.paths) == 2


def test_two_files_of_one_name_both_count(own_cache: Path, tmp_path: Path) -> None:
    paths = [tmp_path / folder / "part.bin" for folder in ("a", "b")]
    for path in paths:
        path.parent.mkdir()
        path.write_bytes(b"one")
    before = file_digests(paths)
    paths[0].write_bytes(b"two")
    assert file_digests(paths) != before


@pytest.mark.parametrize("change", ["time", "size", "inode"])
def test_a_remembered_digest_goes_with_size_time_and_inode(
    change: str, own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"one")
    before = path.stat()
    file_digest(path)
    hashed = Hashed(monkeypatch)
    if change == "time":
        path.write_bytes(b"two")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    elif change == "size":
        path.write_bytes(b"four")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    else:
        (tmp_path / "b.bin").write_bytes(b"two")
        os.utime(tmp_path / "b.bin", ns=(before.st_atime_ns, before.st_mtime_ns))
        os.replace(tmp_path / "b.bin", path)
    assert file_digest(path) == sha256_file(path)
    assert hashed.paths == ["a.bin"]


def test_a_link_shares_the_memory_of_its_file(
    own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.bin").write_bytes(b"one")
    (tmp_path / "link.bin").symlink_to("a.bin")
    time.sleep(0.03)
    hashed = Hashed(monkeypatch)
    assert file_digest(tmp_path / "a.bin") == file_digest(tmp_path / "link.bin")
    assert len(hashed.paths) == 1


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff"])
def test_a_broken_memory_costs_time_and_no_more(
    content: bytes, own_cache: Path, tmp_path: Path
) -> None:
    own_cache.mkdir()
    (own_cache / "digests.json").write_bytes(content)
    (tmp_path / "a.bin").write_bytes(b"one")
    time.sleep(0.03)
    assert file_digest(tmp_path / "a.bin") == sha256_file(tmp_path / "a.bin")
    assert json.loads((own_cache / "digests.json").read_text())


def test_files_that_are_gone_are_forgotten(own_cache: Path, tmp_path: Path) -> None:
    for name in ("a.bin", "b.bin"):
        (tmp_path / name).write_bytes(name.encode())
    time.sleep(0.03)
    file_digest(tmp_path / "a.bin")
    (tmp_path / "a.bin").unlink()
    file_digest(tmp_path / "b.bin")
    known = json.loads((own_cache / "digests.json").read_text())
    assert list(known) == [str((tmp_path / "b.bin").resolve())]


def test_a_memory_that_cannot_be_written_costs_time_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("LATENTQA_CACHE", str(tmp_path / "file" / "cache"))
    assert file_digest(tmp_path / "file") == sha256_file(tmp_path / "file")


def test_digests_of_files_follow_names_and_bytes(own_cache: Path, tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_bytes(b"1")
    b.write_bytes(b"2")
    first = file_digests([a, b])
    assert file_digests([b, a]) == first
    os.replace(b, tmp_path / "c")
    assert file_digests([a, tmp_path / "c"]) != first


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATENTQA_CACHE", "/x")
    assert cache_folder() == Path("/x")
    monkeypatch.delenv("LATENTQA_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/y")
    assert cache_folder() == Path("/y/latentqa")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/z")
    assert cache_folder() == Path("/z/.cache/latentqa")
