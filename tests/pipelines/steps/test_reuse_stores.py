"""Which stores of a root lend their rows to a new one."""

from __future__ import annotations

from pathlib import Path

from core.runtime import Runtime
from pipelines.artifacts.cache_key import StepIdentity
from pipelines.artifacts.root import ArtifactRoot
from pipelines.steps.dump import find_reusable_stores


def artifact(root: ArtifactRoot, kind: str, number: int) -> Path:
    identity = StepIdentity(kind=kind, version=1, config={"number": number}, inputs={}, external={})
    root.begin(identity)
    record = {"counts": {}, "created": f"2026-01-0{number}T00:00:00"}
    return root.commit(identity, record).data


def test_finished_stores_lend_the_newest_first(tmp_path: Path) -> None:
    root = ArtifactRoot(tmp_path)
    old, new = artifact(root, "dump", 1), artifact(root, "dump", 2)
    artifact(root, "train", 3)
    root.begin(StepIdentity(kind="dump", version=1, config={}, inputs={}, external={}))
    assert find_reusable_stores(tmp_path, Runtime()) == [new, old]
    assert find_reusable_stores(tmp_path, Runtime(reuse_rows=False)) == []
