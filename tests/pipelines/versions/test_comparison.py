"""Two versions side by side, as `latentqa diff` shows them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from schedule_example import experiment

from latentqa.terminal.version_view import version_lines
from pipelines.artifacts.artifact import Artifact
from pipelines.artifacts.refs import Refs
from pipelines.artifacts.root import ArtifactRoot
from pipelines.versions.comparison import VersionComparison, compare_versions
from pipelines.versions.firing import fire

Versions = tuple[dict[str, Artifact], dict[str, Artifact]]


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Versions:
    """Make two versions, of which the second has five controls more."""
    root = ArtifactRoot(tmp_path_factory.mktemp("versions") / "root")
    for _ in range(2):
        fire(experiment(mode="grow", by=5), root)
    return Refs(root).resolve_set("sheets:1"), Refs(root).resolve_set("sheets:2")


def compared(*sides: Any) -> VersionComparison:
    found = compare_versions(*sides)
    assert found is not None
    return found


def test_controls_and_rows_are_counted_on_both_sides(versions: Versions) -> None:
    found = compared(*versions)
    assert (found.kept, found.added, found.removed) == (12, 5, 0)
    assert found.counts["controls"] == (12, 17)
    back = compared(*reversed(versions))
    assert (back.added, back.removed) == (0, 5)


def test_each_distribution_has_a_distance_and_an_adjusted_p(versions: Versions) -> None:
    drift = compared(*versions).drift
    assert {"category", "question type", "length of answers"} <= {one.name for one in drift}
    assert all(0 <= one.distance <= 1 and one.p is not None for one in drift)
    assert not any(one.stands_out for one in drift)


def test_a_few_of_the_rows_that_differ_are_shown(versions: Versions) -> None:
    found, back = compared(*versions), compared(*reversed(versions))
    assert len({row.control for row in found.added_rows}) == 3
    assert found.removed_rows == ()
    assert back.removed_rows == found.added_rows
    lines = list(version_lines(found))
    assert lines[0] == "rows: 12 controls in both, 5 added, 0 removed"
    assert sum(line.startswith("+ profile, ") for line in lines) == 3
    assert any(line.startswith("drift: ") for line in lines)


def test_flags_of_an_llm_are_compared_where_both_have_them(
    versions: Versions, tmp_path: Path
) -> None:
    def with_quality(side: dict[str, Artifact], share: float) -> dict[str, Any]:
        flags = {"answerable": {"rows": 1, "share": share}}
        quality = {"flags": flags, "examples": {}, "compared": 0}
        own = SimpleNamespace(record={"counts": {"quality": quality}}, data=tmp_path)
        own.checked = lambda: own
        return {**side, "quality": own}

    judged = with_quality(versions[0], 0.25), with_quality(versions[1], 0.5)
    assert compared(*judged).flags == {"answerable": (0.25, 0.5)}
    assert "answerable" not in compared(judged[0], versions[1]).flags


def test_versions_without_rows_are_not_compared(versions: Versions) -> None:
    assert compare_versions({}, versions[1]) is None
