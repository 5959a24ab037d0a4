"""An artifact root with a tiny decoder, and calls of `latentqa ask`."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

import chain
import pytest
from command_line import Called as CommandLine

from pipelines.artifacts.artifact import Artifact
from pipelines.artifacts.cache_key import StepIdentity
from pipelines.artifacts.refs import Refs
from pipelines.artifacts.root import ArtifactRoot

PROMPT, QUESTION = "You love red", "Which?"
WORDS = ("--prompt", PROMPT, "--question", QUESTION, "--max-tokens", "6", "--device", "cpu")


def commit(
    root: ArtifactRoot, kind: str, source: Path, *inputs: Artifact, model: str | None = None
) -> Artifact:
    """Make an artifact of `kind` with the files of `source`; its target is the chain's or `model`.

    Args:
        root: where it is made.
        kind: of the artifact.
        source: folder whose files it has.
        inputs: that it is made from.
        model: reference of its target.
    """
    identity = StepIdentity(
        kind=kind,
        version=1,
        config={"of": kind, "views": ["control"]},
        inputs={own.kind: {"key": own.key, "digest": own.output} for own in inputs},
        external={},
    )
    shutil.copytree(source, root.begin(identity).data, dirs_exist_ok=True)
    where = {"model": model or chain.model().ref, "adapter": None}
    return root.commit(identity, {"counts": {}, "locations": where})


def make_root(folder: Path) -> Path:
    """Make an artifact root with a store and a decoder, named `toy` and `quickstart`."""
    return Path(shutil.copytree(_root(), folder / "root", symlinks=True))


@functools.cache
def _root() -> Path:
    """Make the root once in this process."""
    folder = Path(tempfile.mkdtemp(prefix="root-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    made = chain.make(folder / "chain", chain.rows_of(splits={"train": 24}))
    (folder / "decoder").mkdir()
    chain.decoder(made, nudge=0.3).save(folder / "decoder")
    place = ArtifactRoot(folder / "root")
    tables = commit(place, "conversations", made.conversations)
    store = commit(place, "dump", made.store)
    artifacts = [tables, store, commit(place, "train", folder / "decoder", tables, store)]
    Refs(place).publish("toy", artifacts)
    Refs(place).publish("quickstart", artifacts)  # the name that README and docs ask
    return place.path


class Called(CommandLine):
    """What `latentqa ask`, or another command, printed over a root, and its exit code."""

    def __init__(
        self, capsys: pytest.CaptureFixture[str], root: Path, *words: str, command: str = "ask"
    ) -> None:
        super().__init__(capsys, command, "--root", str(root), *words)
