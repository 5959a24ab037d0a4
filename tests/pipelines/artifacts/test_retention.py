"""Which numbered versions keep their names."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from command_line import Called

from pipelines.artifacts.locks import shared
from pipelines.artifacts.refs import Name, Refs
from pipelines.artifacts.retention import find_expired
from pipelines.artifacts.root import ArtifactRoot

NEWEST = datetime(2026, 1, 30, tzinfo=UTC)


def version(root: ArtifactRoot, number: int, days_ago: int) -> None:
    """Give the experiment a version whose one artifact was made so many days before the newest."""
    key = f"{number:064x}"[::-1]
    folder = root.folder("dump", key)
    (folder / "data").mkdir(parents=True)
    created = (NEWEST - timedelta(days=days_ago)).isoformat()
    record = {"kind": "dump", "key": key, "created": created, "inputs": {}, "files": []}
    record |= {"counts": {}, "output": "0"}
    (folder / "record.json").write_text(json.dumps(record))
    refs = Refs(root)
    name = Name(name="e", version=str(number), artifacts=(f"dump/{key}",), number=number)
    refs._write(name)


@pytest.fixture
def refs(tmp_path: Path) -> Refs:
    """Ten versions, one every three days; the last is `latest`."""
    root = ArtifactRoot(tmp_path)
    root.mark()
    for number in range(1, 11):
        version(root, number, days_ago=3 * (10 - number))
    refs = Refs(root)
    newest = refs.get("e:10")
    assert newest is not None
    refs.promote(newest)
    return refs


def expired(refs: Refs, last: int, weekly: int) -> list[int | None]:
    return [name.number for name in find_expired(refs, "e", last=last, weekly=weekly)]


def test_the_last_versions_are_kept(refs: Refs) -> None:
    assert expired(refs, last=3, weekly=0) == [1, 2, 3, 4, 5, 6, 7]


def test_one_a_week_is_kept(refs: Refs) -> None:
    kept = set(range(1, 11)) - {n for n in expired(refs, last=1, weekly=4) if n is not None}
    weeks = {(NEWEST - timedelta(days=3 * (10 - n))).isocalendar()[:2]: n for n in range(1, 11)}
    assert kept == {n for _, n in sorted(weeks.items())[-4:]}


def test_what_is_tagged_is_kept(refs: Refs) -> None:
    refs.tag("e:2", "paper")
    assert expired(refs, last=3, weekly=0) == [1, 3, 4, 5, 6, 7]


def test_what_is_latest_is_kept_however_old(refs: Refs) -> None:
    good = refs.get("e:1")
    assert good is not None
    refs.promote(good)
    assert expired(refs, last=1, weekly=0) == list(range(2, 10))


def test_a_dry_run_lists_what_would_go_and_keeps_it(
    refs: Refs, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("gc", "--root", str(refs.root.path), "--keep-last", "2")
    told = Called(capsys, *words, "--dry-run", "--json").json()
    assert told["names"] == [f"e:{n}" for n in range(1, 9)]
    assert len(refs.names()) == 11
    assert Called(capsys, *words).out.endswith(
        f"latentqa gc --keep-last 2 --root {refs.root.path} --delete\n"
    )


def test_dropped_names_free_their_artifacts(refs: Refs, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("gc", "--root", str(refs.root.path), "--keep-last", "2", "--delete")
    told = Called(capsys, *words, "--json").json()
    assert told["names"] == [f"e:{n}" for n in range(1, 9)]
    assert [str(name) for name in refs.names()] == ["e:10", "e:9", "e:latest"]


def test_no_name_is_dropped_where_nothing_can_be_removed(
    refs: Refs, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("gc", "--root", str(refs.root.path), "--keep-last", "2", "--delete")
    with shared(refs.root.in_use):
        assert "a run is in progress here" in Called(capsys, *words).refused()
    assert len(refs.names()) == 11


def test_a_dry_run_does_not_delete(refs: Refs, capsys: pytest.CaptureFixture[str]) -> None:
    done = Called(capsys, "gc", "--root", str(refs.root.path), "--delete", "--dry-run")
    assert "got --delete and --dry-run" in done.refused()
