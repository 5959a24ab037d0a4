"""Publishing a decoder: a folder that peft alone loads, and a hub that is not there."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import chain
import numpy as np
import pytest
import tiny
import torch
import yaml
from command_line import Called
from huggingface_hub import ModelCard

from decoder.normalisation import ActivationStatistics
from pipelines.artifacts.artifact import Artifact
from pipelines.artifacts.cache_key import StepIdentity
from pipelines.artifacts.refs import Refs
from pipelines.artifacts.root import ArtifactRoot
from pipelines.reports.publish.target import describe_target

IDS = torch.arange(5, 25)[None]
LEAF = {"estimate": 1.234, "low": 1.1, "high": 1.4, "n": 20}
READING = {
    "test": {
        "control": {
            "answer_loss": {"right": LEAF, "other": LEAF},
            "untrained": {"right": LEAF, "other": LEAF},
            "grounded_gain": LEAF,
            "information_gain": LEAF,
            "below_untrained": LEAF,
            "best_uninformed": "other",
            "excluded": {},
        }
    }
}


def commit(
    root: ArtifactRoot, kind: str, inputs: dict[str, Any], counts: dict[str, Any], source: Path
) -> Artifact:
    identity = StepIdentity(
        kind=kind,
        version=1,
        config={"learning_rate": 1e-3},
        inputs=inputs,
        external=chain.model().digests(),
    )
    shutil.copytree(source, root.begin(identity).data, dirs_exist_ok=True)
    where = {"model": chain.model().ref, "adapter": None}
    return root.commit(identity, {"counts": counts, "locations": where, "created": "2026-01-01"})


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> ArtifactRoot:
    """Make a root with a decoder, `toy`, and its evaluation."""
    folder = tmp_path_factory.mktemp("publish")
    made = chain.make(folder / "chain", chain.rows_of(splits={"train": 2}))
    for name in ("decoder", "nothing"):
        (folder / name).mkdir()
    decoder = chain.decoder(made, nudge=0.3, normalisation="standardise")
    width = decoder.net.config.hidden_size
    decoder.use_statistics(
        ActivationStatistics(
            mean=np.zeros((1, width), np.float32),
            deviation=np.ones((1, width), np.float32),
            length=1.0,
        )
    )
    decoder.save(folder / "decoder")
    place = ArtifactRoot(folder / "root")
    data = {"dump": {"key": "d" * 64, "digest": "e" * 64}}
    train = commit(place, "train", data, {"rows": 240, "steps": 60}, folder / "decoder")
    own = {"train": {"key": train.key, "digest": train.output}}
    commit(place, "evaluate", own, {"reading": READING}, folder / "nothing")
    Refs(place).publish("toy", [train])
    return place


class Published(Called):
    """What `latentqa publish` printed, and its exit code."""

    def __init__(self, capsys: pytest.CaptureFixture[str], root: ArtifactRoot, *words: str) -> None:
        super().__init__(capsys, "publish", "toy", "--root", str(root.path), *words)


def test_peft_alone_loads_the_folder(
    root: ArtifactRoot, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from peft import PeftModel

    done = Published(capsys, root, "--out", str(tmp_path / "mine"))
    assert (done.code, done.err) == (0, "")
    net = PeftModel.from_pretrained(tiny.model(), tmp_path / "mine")
    with torch.no_grad():
        assert not torch.allclose(net(IDS).logits, tiny.model()(IDS).logits)


def test_a_published_decoder_normalises_as_it_was_trained(
    root: ArtifactRoot, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Published(capsys, root, "--out", str(tmp_path / "mine"))
    assert ActivationStatistics.load(tmp_path / "mine").length == 1.0


def test_the_card_is_made_of_the_records(
    root: ArtifactRoot, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Published(capsys, root, "--out", str(tmp_path / "mine"))
    card = (tmp_path / "mine" / "README.md").read_text()
    header = yaml.safe_load(card.split("---")[1])
    assert header["library_name"] == "peft"
    train = root.artifacts("train")[0]
    for part in (
        f"| train | `{train.key}` |",
        f"| dump | `{'d' * 64}` |",
        "| rows | 240 |",
        "learning_rate: 0.001",
        "| 1.23 [1.10, 1.40] |",
    ):
        assert part in card
    for path in (str(tmp_path), str(chain.model().source.parent), str(root.path)):
        assert path not in card


def test_a_target_without_a_repository_is_named_by_its_digests(
    root: ArtifactRoot, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Published(capsys, root, "--out", str(tmp_path / "mine"))
    card = ModelCard.load(tmp_path / "mine" / "README.md")
    assert "base_model" not in card.data.to_dict()
    assert f"| weights | `{chain.model().digests()['weights']}` |" in card.text
    assert "The licence of the target is not known here." in card.text


def test_repository_and_licence_can_be_given(
    root: ArtifactRoot, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, commit_ = tmp_path / "mine", "c" * 40
    words = ("--base-model", f"org/tiny@{commit_}", "--license", "apache-2.0")
    Published(capsys, root, "--out", str(folder), *words)
    data = ModelCard.load(folder / "README.md").data.to_dict()
    assert (data["base_model"], data["license"]) == ("org/tiny", "apache-2.0")
    settings = json.loads((folder / "adapter_config.json").read_text())
    assert (settings["base_model_name_or_path"], settings["revision"]) == ("org/tiny", commit_)
    assert json.loads((folder / "latentqa.json").read_text())["model"] == f"org/tiny@{commit_}"


def train_with(model: str, digests: dict[str, str], folder: Path) -> Artifact:
    """Write a train artifact of which only the target is read."""
    (folder / "record.json").write_text(
        json.dumps(
            {
                **dict.fromkeys(("kind", "key", "output"), "x"),
                "files": [],
                "inputs": {},
                "counts": {},
                "locations": {"model": model, "adapter": None},
            }
        )
    )
    (folder / "identity.json").write_text(json.dumps({"external": digests}))
    return Artifact(folder)


def test_the_embedded_model_goes_by_its_repository(tmp_path: Path) -> None:
    found = describe_target(train_with("embedded", {"weights": "gguf:1:ab"}, tmp_path))
    assert found.repository == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert found.licence == "apache-2.0"


def test_a_target_in_the_hubs_cache_has_its_commit_and_its_cards_licence(tmp_path: Path) -> None:
    commit_ = "d" * 40
    folder = tmp_path / "models--org--tiny" / "snapshots" / commit_
    shutil.copytree(chain.model().source, folder)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Tiny\n")
    digests = chain.model().digests()
    found = describe_target(train_with(str(folder), digests, tmp_path))
    assert (found.repository, found.revision, found.licence) == ("org/tiny", commit_, "mit")
    found = describe_target(train_with(str(folder), {**digests, "weights": "other"}, tmp_path))
    assert (found.repository, found.revision, found.licence) == ("org/tiny", None, None)


def test_a_folder_whose_writing_failed_is_no_hindrance_to_a_second_try(
    root: ArtifactRoot,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "mine"
    with monkeypatch.context() as patch:
        refuse = OSError(errno.ENOSPC, "No space left on device")
        patch.setattr("pipelines.reports.publish.decoder.model_card", Mock(side_effect=refuse))
        assert Published(capsys, root, "--out", str(folder)).code == 2
    assert list(tmp_path.iterdir()) == []
    assert Published(capsys, root, "--out", str(folder)).code == 0


class Hub:
    """Stands for the hub; keeps what it was sent."""

    sent: dict[str, Any]

    def __init__(self, token: str) -> None:
        Hub.sent = {"token": token}

    def create_repo(self, repo: str, *, repo_type: str, private: bool, exist_ok: bool) -> str:
        Hub.sent |= {"repo": repo, "type": repo_type, "private": private, "exist_ok": exist_ok}
        return f"https://hub.test/{repo}"

    def upload_folder(
        self, *, repo_id: str, repo_type: str, folder_path: str, commit_message: str
    ) -> None:
        Hub.sent["files"] = sorted(path.name for path in Path(folder_path).iterdir())


class Refusing(Hub):
    """A hub that answers with the token in its words."""

    def upload_folder(self, **given: Any) -> None:
        raise ConnectionError(f"403 for {Hub.sent['token']}")


def test_a_hub_is_sent_the_folder(
    root: ArtifactRoot, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    monkeypatch.setenv("HF_TOKEN", "secret")
    done = Published(capsys, root, "--repo", "me/decoder", "--private")
    assert done.code == 0
    assert "https://hub.test/me/decoder" in done.out
    assert "secret" not in done.out
    assert Hub.sent == {
        "token": "secret",
        "repo": "me/decoder",
        "type": "model",
        "private": True,
        "exist_ok": True,
        "files": [
            *("README.md", "adapter_config.json", "adapter_model.safetensors"),
            *("latentqa.json", "normalisation.safetensors"),
        ],
    }


def test_an_upload_that_fails_leaves_no_folder_that_a_second_try_trips_over(
    root: ArtifactRoot,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    words = ("--out", str(tmp_path / "out"), "--repo", "me/decoder")
    monkeypatch.setattr("huggingface_hub.HfApi", Refusing)
    assert "upload failed" in Published(capsys, root, *words).err
    assert not list(tmp_path.glob("*out*"))
    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    assert Published(capsys, root, *words).code == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == Hub.sent["files"]


@pytest.mark.parametrize(
    ("words", "token", "message"),
    [
        ((), "secret", "got neither --out nor --repo"),
        (("--repo", "me/decoder"), "", "HF_TOKEN is not set"),
        (("--repo", "decoder"), "secret", "not a repository's name"),
        (
            ("--repo", "me/decoder"),
            "secret",
            "upload failed (ConnectionError: 403 for …)",
        ),
        (
            ("--out", "."),
            "secret",
            "already exists and is not empty, expected a new or empty folder",
        ),
        (
            ("--out", "x", "--base-model", "tiny"),
            "secret",
            "tiny: not a repository",
        ),
    ],
)
def test_what_cannot_be_published_is_one_line(
    words: tuple[str, ...],
    token: str,
    message: str,
    root: ArtifactRoot,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("huggingface_hub.HfApi", Refusing)
    monkeypatch.setenv("HF_TOKEN", token)
    done = Published(capsys, root, *words)
    assert done.code == 2
    assert message in done.err
    assert done.err.count("\n") == 1
