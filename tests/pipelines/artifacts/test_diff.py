"""Differences between artifacts, and the artifact that is nearest."""

from __future__ import annotations

from pathlib import Path

from fake_steps import FakeSteps, runner

from pipelines.artifacts.diff import compare_artifacts, nearest
from pipelines.artifacts.root import ArtifactRoot


def test_two_artifacts_differ_in_named_fields(tmp_path: Path) -> None:
    steps = FakeSteps(tmp_path / "log", pieces=1)
    a = runner(tmp_path / "r", steps, until="dump").run().steps[2].artifact
    b = runner(tmp_path / "r", steps, until="dump", dump={"layers": [3]}).run().steps[2].artifact
    assert [str(d) for d in compare_artifacts(a, b)] == ["config.layers: [0.5] → [3]"]


def test_other_bytes_of_the_same_identity_are_shown(tmp_path: Path) -> None:
    a = runner(tmp_path / "a", FakeSteps(tmp_path / "log"), "conversations").run()
    changed = FakeSteps(tmp_path / "log", digits={"conversations": "x"})
    b = runner(tmp_path / "b", changed, "conversations").run()
    found = compare_artifacts(a.steps[0].artifact, b.steps[0].artifact)
    assert [d.field for d in found] == ["output"]


def test_the_nearest_has_the_fewest_other_fields(tmp_path: Path) -> None:
    steps = FakeSteps(tmp_path / "log", pieces=1)
    near = runner(tmp_path / "r", steps, until="dump").run().steps[2].artifact
    runner(
        tmp_path / "r", steps, until="dump", dump={"layers": [3]}, data={"path": ".", "limit": 1}
    ).run()
    wanted = {**near.identity, "config": {"layers": [5]}}
    found = nearest(ArtifactRoot(tmp_path / "r").artifacts("dump"), wanted)
    assert found is not None
    assert found[0] == near
    assert [str(d) for d in found[1]] == ["config.layers: [0.5] → [5]"]


def test_an_empty_root_has_no_nearest(tmp_path: Path) -> None:
    assert nearest(ArtifactRoot(tmp_path).artifacts("dump"), {"config": {}}) is None
