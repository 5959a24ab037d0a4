"""Publishing a decoder: a folder that peft alone loads, and a hub that is not there."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import chain
import pytest
import tiny
import torch
import yaml

from latentqa.cli import main
from pipelines.artifacts.artifact import Artifact
from pipelines.artifacts.identity import StepIdentity
from pipelines.artifacts.refs import Refs
from pipelines.artifacts.root import ArtifactRoot

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
        }
    }
}


def commit(
    root: ArtifactRoot, kind: str, inputs: dict[str, Any], counts: dict[str, Any], source: Path
) -> Artifact:
    identity = StepIdentity(
        kind=kind, version=1, config={"learning_rate": 1e-3}, inputs=inputs, external={}
    )
    shutil.copytree(source, root.begin(identity).data, dirs_exist_ok=True)
    where = {"model": chain.model().ref, "adapter": None}
    return root.commit(identity, {"counts": counts, "locations": where, "created": "2026-01-01"})


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> ArtifactRoot:
    """A root with a decoder, `toy`, and its evaluation."""
    folder = tmp_path_factory.mktemp("publish")
    made = chain.make(folder / "chain", chain.rows_of(splits={"train": 2}))
    for name in ("decoder", "nothing"):
        (folder / name).mkdir()
    chain.decoder(made, nudge=0.3).save(folder / "decoder")
    place = ArtifactRoot(folder / "root")
    data = {"dump": {"key": "d" * 64, "digest": "e" * 64}}
    train = commit(place, "train", data, {"rows": 240, "steps": 60}, folder / "decoder")
    own = {"train": {"key": train.key, "digest": train.output}}
    commit(place, "evaluate", own, {"reading": READING}, folder / "nothing")
    Refs(place).publish("toy", [train])
    return place


class Published:
    """What `latentqa publish` printed, and its exit code."""

    def __init__(self, capsys: pytest.CaptureFixture[str], root: ArtifactRoot, *words: str) -> None:
        with pytest.raises(SystemExit) as done:
            main(["publish", "--decoder", "toy", "--root", str(root.path), *words])
        self.code = done.value.code
        self.out, self.err = capsys.readouterr()


def test_peft_alone_loads_the_folder(
    root: ArtifactRoot, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from peft import PeftModel

    done = Published(capsys, root, "--folder", str(tmp_path / "mine"))
    assert (done.code, done.err) == (0, "")
    net = PeftModel.from_pretrained(tiny.model(), tmp_path / "mine")
    with torch.no_grad():
        assert not torch.allclose(net(IDS).logits, tiny.model()(IDS).logits)


def test_the_card_is_made_of_the_records(
    root: ArtifactRoot, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Published(capsys, root, "--folder", str(tmp_path / "mine"))
    card = (tmp_path / "mine" / "README.md").read_text()
    header = yaml.safe_load(card.split("---")[1])
    assert header["library_name"] == "peft"
    train = root.artifacts("train")[0]
    for part in (
        f"| train | `{train.key}` |",
        f"| dump | `{'d' * 64}` |",
        "| rows | 240 |",
        "learning_rate: 0.001",
        "| test | control | 1.23 [1.10, 1.40] |",
    ):
        assert part in card
    for path in (str(tmp_path), str(chain.model().source.parent), str(root.path)):
        assert path not in card


class Hub:
    """Stands for the hub; keeps what it was sent."""

    sent: dict[str, Any]

    def __init__(self, token: str) -> None:
        Hub.sent = {"token": token}

    def create_repo(self, repo: str, *, private: bool, exist_ok: bool) -> str:
        Hub.sent |= {"repo": repo, "private": private, "exist_ok": exist_ok}
        return f"https://hub.test/{repo}"

    def upload_folder(self, *, repo_id: str, folder_path: Path, commit_message: str) -> None:
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
        "private": True,
        "exist_ok": True,
        "files": ["README.md", "adapter_config.json", "adapter_model.safetensors", "latentqa.json"],
    }


@pytest.mark.parametrize(
    ("words", "token", "message"),
    [
        ((), "secret", "got neither --folder nor --repo"),
        (("--repo", "me/decoder"), "", "HF_TOKEN is not set"),
        (("--repo", "decoder"), "secret", "not a repository's name"),
        (("--repo", "me/decoder"), "secret", "the hub did not take it (403 for …)"),
        (("--folder", "."), "secret", "it is there already"),
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
