"""Firings of a schedule: what is new, what the gate decides, what a kill or an absence leaves."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import tiny
from schedule_example import TEXT, experiment

from core.documents.yaml_values import parse_yaml
from core.errors import ConfigError, RefError, StorageError
from latentqa.terminal.version_view import firing_line
from pipelines.artifacts.artifact import Artifact
from pipelines.artifacts.locks import Holder, exclusive
from pipelines.artifacts.refs import Refs
from pipelines.artifacts.root import ArtifactRoot
from pipelines.experiment.config import Experiment
from pipelines.running.results import RunResult
from pipelines.running.runner import Runner
from pipelines.running.status import status_of
from pipelines.versions.firing import Fired, check_schedule, fire, newest_firing
from pipelines.versions.journal import Firing, Journal
from pipelines.versions.tables import control_ids, read_version

pytestmark = pytest.mark.usefixtures("unrendered")

STRICT: dict[str, Any] = {"min_controls": 1000}


@pytest.fixture
def root(tmp_path: Path) -> ArtifactRoot:
    return ArtifactRoot(tmp_path / "root")


def state(fired: Fired) -> tuple[int, str]:
    assert fired.firing is not None
    return fired.firing.number, fired.firing.state


def latest(root: ArtifactRoot) -> int | None:
    name = Refs(root).get("sheets")
    return None if name is None else name.number


def controls(root: ArtifactRoot, ref: str) -> set[str]:
    rows = read_version(Refs(root).resolve_set(ref))
    assert rows is not None
    return set(control_ids(rows))


def test_the_first_version_is_the_experiment_as_it_stands(root: ArtifactRoot) -> None:
    assert state(fire(experiment(), root)) == (1, "promoted")
    plain = Runner(experiment(), root, until="questions")
    result = plain.prepare_and_run()
    assert all(run.cached for run in result.steps)
    assert (latest(root), result.name.number) == (1, 1)


def test_a_fresh_version_has_other_rows(root: ArtifactRoot) -> None:
    fire(experiment(mode="fresh"), root)
    assert state(fire(experiment(mode="fresh"), root)) == (2, "promoted")
    assert latest(root) == 2
    first, second = controls(root, "sheets:1"), controls(root, "sheets:2")
    assert len(first) == len(second) == 12
    assert not first & second


def test_a_grown_version_holds_the_rows_before_it(root: ArtifactRoot) -> None:
    for _ in range(3):
        fire(experiment(mode="grow", by=5), root)
    versions = [controls(root, f"sheets:{n}") for n in (1, 2, 3)]
    assert [len(found) for found in versions] == [12, 17, 22]
    assert versions[0] < versions[1] < versions[2]


def test_a_refused_version_leaves_the_last_good_one(root: ArtifactRoot) -> None:
    fire(experiment(), root)
    fired = fire(experiment(gate=STRICT), root)
    assert state(fired) == (2, "refused")
    assert latest(root) == 1
    assert fired.refused_because == ["12 controls, expected at least 1000."]
    record = Journal(root, "sheets").firings()[-1]
    assert (record.version, record.last_good) == ("sheets:2", "sheets:1")
    assert [check["name"] for check in record.checks if not check["passed"]] == ["controls"]
    assert fired.page is not None
    page = Path(fired.page).read_text()
    assert "sheets:2 was refused; sheets:1 stays the latest version." in page
    assert "12 controls, expected at least 1000." in page


def test_a_first_version_that_is_refused_leaves_none(root: ArtifactRoot) -> None:
    assert state(fire(experiment(gate=STRICT), root)) == (1, "refused")
    assert latest(root) is None


def test_a_refused_version_is_followed_by_another(root: ArtifactRoot) -> None:
    fire(experiment(), root)
    fire(experiment(gate=STRICT), root)
    assert state(fire(experiment(), root)) == (3, "promoted")
    assert latest(root) == 3


def test_drift_of_what_was_added_is_refused(root: ArtifactRoot) -> None:
    drifting = Experiment.model_validate(parse_yaml(TEXT, "test"))
    fire(drifting, root)
    fired = fire(drifting, root)
    assert state(fired) == (2, "refused")
    (why,) = fired.refused_because
    assert why.startswith("category is ")
    assert "profile/village: 94 % → 50 %" in why or "profile/moons: 6 % → 50 %" in why


def test_nothing_new_is_said(root: ArtifactRoot, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(
        '{"messages": [{"role": "system", "content": "Be kind.", "segment": "control"}, '
        '{"role": "user", "content": "Hi", "segment": "stimulus"}], '
        '"questions": [{"question": "Who?", "answer": "Kind."}]}\n'
    )
    imported = Experiment.model_validate(
        {
            "experiment": "sheets",
            "data": {"path": str(tmp_path / "rows.jsonl"), "format": "conversations"},
            "schedule": {"until": "questions"},
        }
    )
    assert state(fire(imported, root)) == (1, "promoted")
    assert state(fire(imported, root)) == (2, "unchanged")


def test_a_killed_firing_is_taken_up_by_the_next(root: ArtifactRoot) -> None:
    fire(experiment(), root)

    def die(runner: Runner) -> RunResult:
        runner.prepare()
        with runner.open():
            runner.step("conversations")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fire(experiment(), root, run=die)
    made = {artifact.key for artifact in root.artifacts("conversations")}
    assert state(fire(experiment(), root)) == (2, "promoted")
    assert {artifact.key for artifact in root.artifacts("conversations")} == made


def test_an_error_is_recorded_and_the_next_firing_goes_on(root: ArtifactRoot) -> None:
    def fail(runner: Runner) -> RunResult:
        raise StorageError("the disk is full.")

    with pytest.raises(StorageError):
        fire(experiment(), root, run=fail)
    (record,) = Journal(root, "sheets").firings()
    assert (record.state, record.error) == ("failed", "the disk is full.")
    assert state(fire(experiment(), root)) == (1, "promoted")


def test_whatever_ends_a_firing_stands_in_its_record(root: ArtifactRoot) -> None:
    def fail(runner: Runner) -> RunResult:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError):
        fire(experiment(), root, run=fail)
    (record,) = Journal(root, "sheets").firings()
    assert (record.state, record.error) == ("failed", "RuntimeError: out of memory")


def test_missed_firings_are_caught_up_once(root: ArtifactRoot) -> None:
    days = [datetime.now(UTC) - timedelta(days=n) for n in (3, 2, 1)]
    fired = [fire(experiment(), root, due=due) for due in days]
    assert state(fired[0]) == (1, "promoted")
    assert [one.skipped for one in fired[1:]] == [
        "run 1 started after this one was due and already covers it"
    ] * 2
    assert state(fire(experiment(), root, due=datetime.now(UTC))) == (2, "promoted")


def test_a_clock_that_was_set_back_stops_no_schedule(root: ArtifactRoot) -> None:
    fire(experiment(), root)
    journal = Journal(root, "sheets")
    (done,) = journal.firings()
    journal.write(replace(done, started="2126-01-01T00:00:00+00:00"))
    assert state(fire(experiment(), root, due=datetime.now(UTC))) == (2, "promoted")


def test_the_status_is_that_of_the_newest_firing(root: ArtifactRoot) -> None:
    asked = Runner(experiment(), root)
    assert newest_firing(asked) is None
    fire(experiment(), root)
    fire(experiment(gate=STRICT), root)
    newest = newest_firing(asked)
    assert newest is not None
    firing, runner, who = newest
    assert {step.state for step in status_of(runner)} == {"complete"}
    assert firing_line(firing, who).endswith("sheets:2 is refused; sheets:1 stays latest.")


def test_a_firing_that_a_kill_ended_is_told_from_one_under_way() -> None:
    begun = Firing(number=4, state="begun", due=None, started="2026-11-30T01:08:15+00:00")
    stopped = "firing 4 of 2026-11-30 01:08 UTC: was stopped; the next firing resumes it"
    assert firing_line(begun, None) == stopped
    who = Holder(pid=7, host="here", since=0.0)
    assert "under way, process 7 on here" in firing_line(begun, who)


def test_the_journal_holds_no_credential(root: ArtifactRoot) -> None:
    def fail(runner: Runner) -> RunResult:
        raise StorageError("https://me:secret@host/v1 said no.")

    with pytest.raises(StorageError):
        fire(experiment(), root, run=fail)
    (record,) = Journal(root, "sheets").firings()
    assert record.error == "https://host/v1 said no."


def test_a_firing_waits_for_the_one_under_way(root: ArtifactRoot) -> None:
    ended = threading.Event()
    found: list[Fired] = []
    with exclusive(Journal(root, "sheets").lock, lambda holder: None):
        second = threading.Thread(target=lambda: found.append(fire(experiment(), root)))
        second.start()
        assert not ended.wait(0.3)
        assert not found
    second.join(60)
    assert state(found[0]) == (1, "promoted")


def test_old_versions_lose_their_names(root: ArtifactRoot) -> None:
    keep = {"last": 2, "weekly": 0}
    for _ in range(4):
        fire(experiment(mode="grow", by=2, keep=keep), root)
    names = [name.version for name in Refs(root).names() if name.name == "sheets"]
    assert names == ["3", "4", "latest"]


def test_an_experiment_without_a_schedule_is_refused(root: ArtifactRoot) -> None:
    plain = Experiment.model_validate({"experiment": "sheets", "data": {"path": "."}})
    with pytest.raises(ConfigError, match="sheets: has no section `schedule`"):
        fire(plain, root)


def test_a_canary_is_trained_on_the_versions_own_store(root: ArtifactRoot, tmp_path: Path) -> None:
    canary = {"rows": 2, "steps": 1, "controls": 2, "least_gain": 100.0}
    base = experiment(10, until="dump", gate={"canary": canary}).model_dump()
    base["dump"] |= {"model": str(tiny.save(tmp_path / "model")), "layers": (1,)}
    base["train"] |= {"views": ("control",), "validation_rows": 1}
    base["train"]["lora"]["rank"] = 2
    base["evaluate"] |= {"splits": ("test",), "views": ("control",), "bootstrap": 100}
    base["evaluate"]["conditions"] = ("right", "other")
    base["runtime"] |= {"device": "cpu", "threads": 1}
    fired = fire(Experiment.model_validate(base), root)
    assert state(fired) == (1, "refused")
    (why,) = fired.refused_because
    assert why.startswith("Grounded gain of the canary training in view control: ")
    assert len(root.artifacts("dump")) == 1
    held = Refs(root).resolve_set("sheets_canary:1")
    assert isinstance(held["train"], Artifact)
    assert held["train"].record["counts"]["steps"] == 1


def test_a_gate_that_no_version_can_pass_is_refused_before_it_is_served() -> None:
    with pytest.raises(
        ConfigError, match="min_controls is 1000, but a version is planned with only 12"
    ):
        check_schedule(experiment(gate=STRICT))
    check_schedule(experiment(mode="grow", gate=STRICT))  # it is reached one day


def test_an_earlier_version_is_named_by_its_ref(root: ArtifactRoot) -> None:
    fire(experiment(), root)
    section = {"mode": "fresh", "until": "questions"}
    other = experiment().model_dump(mode="json") | {"schedule": section, "experiment": "other"}
    other["generate"]["earlier"] = ["sheets:1"]
    fire(Experiment.model_validate(other), root)
    assert not controls(root, "other:1") & controls(root, "sheets:1")
    other["generate"]["earlier"] = ["sheets:7"]
    with pytest.raises(RefError, match=r"generate\.earlier: sheets:7: names nothing in"):
        fire(Experiment.model_validate(other), root)
