"""SIGKILL before every single change of the file system: what is left resumes as if left alone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fake_steps import FakeSteps, runner
from file_changes import count_changes, run_and_die

from pipelines.artifacts.gc import collect_garbage
from pipelines.artifacts.refs import Refs
from pipelines.artifacts.root import ArtifactRoot
from pipelines.running.results import RunResult


def run(root: Path, **changes: Any) -> RunResult:
    made = runner(root, FakeSteps(root.with_suffix(".log"), pieces=1), "dump", **changes)
    made.prepare()
    with made.open():
        return made.run()


def outputs(root: Path) -> dict[str, str]:
    """Key and output digest of every artifact, and the names of every file below the root.

    Locks are left out, and what a killed write of the mark or a name left until gc removes it.
    """
    found = {a.short: f"{a.key} {a.output}" for a in ArtifactRoot(root).artifacts()}
    files = [p.relative_to(root) for p in root.rglob("*") if p.is_file()]
    kept = [
        str(path)
        for path in files
        if path.parts[0] != "locks"
        and not (path.name.startswith(".") and path.parts[0] in ("refs", path.name))
    ]
    return {**found, "files": str(sorted(kept))}


def damaged(root: Path) -> list[str]:
    return [a.short for a in ArtifactRoot(root).artifacts() if a.damaged_files()]


def chosen(total: int, share: float) -> Iterator[int]:
    """Yield the changes, counted from 1, before which a process is killed: a share of all."""
    wanted = random.Random(0).sample(range(1, total + 1), max(3, round(share * total)))
    yield from sorted(wanted)


SHARES = pytest.mark.parametrize("share", [0.2, pytest.param(1.0, marks=pytest.mark.prove)])


@SHARES
def test_a_run_killed_at_any_change_resumes_to_the_same(tmp_path: Path, share: float) -> None:
    run(tmp_path / "alone")  # in this process, so that what a process does once is done
    wanted = outputs(tmp_path / "alone")
    total = count_changes(tmp_path / "counted", lambda: run(tmp_path / "counted"))
    assert total > 50
    for number in chosen(total, share):
        root = tmp_path / f"killed-{number}"
        assert run_and_die(root, number, partial(run, root))
        assert damaged(root) == []
        run(root)
        assert outputs(root) == wanted, f"killed before change {number} of {total}"


@SHARES
def test_a_removal_killed_at_any_change_leaves_no_damage(tmp_path: Path, share: float) -> None:
    def prepare(root: Path) -> ArtifactRoot:
        run(root)
        run(root, dump={"layers": [3]})
        place = ArtifactRoot(root)
        Refs(place).untag("fake:1")
        return place

    place = prepare(tmp_path / "counted")
    total = count_changes(tmp_path / "counted", lambda: collect_garbage(place))
    wanted = outputs(tmp_path / "counted")
    assert total > 6
    for number in chosen(total, share):
        root = tmp_path / f"killed-{number}"
        place = prepare(root)
        assert run_and_die(root, number, partial(collect_garbage, place))
        assert damaged(root) == []
        collect_garbage(place)
        assert outputs(root) == wanted, f"killed before change {number} of {total}"


@SHARES
def test_a_demotion_killed_at_any_change_is_recomputed(tmp_path: Path, share: float) -> None:
    def prepare(root: Path) -> None:
        result = run(root)
        piece = result.steps[2].artifact.data / "piece-0"
        piece.unlink()

    prepare(tmp_path / "counted")
    total = count_changes(tmp_path / "counted", lambda: run(tmp_path / "counted"))
    wanted = outputs(tmp_path / "counted")
    for number in chosen(total, share):
        root = tmp_path / f"killed-{number}"
        prepare(root)
        assert run_and_die(root, number, partial(run, root))
        run(root)
        assert outputs(root) == wanted, f"killed before change {number} of {total}"
