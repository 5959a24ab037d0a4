"""Comparing runs: the same questions alone, what differs, and the page."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.errors import DamagedError, DataError, RefError
from evaluators.comparison.losses import METRICS
from evaluators.comparison.values import ComparedView
from evaluators.measure.result_files import (
    ANSWERS,
    ANSWERS_FILE,
    ITEMS,
    ITEMS_FILE,
    LOSSES,
    LOSSES_FILE,
    write_table,
)
from latentqa.cli import main
from pipelines.artifacts.refs import Refs
from pipelines.artifacts.root import ArtifactRoot
from pipelines.reports.compare.comparison import Comparison, compare_runs, comparison_rows
from pipelines.reports.compare.page import write_comparison
from pipelines.reports.compare.runs import changed_settings, find_runs

pytestmark = pytest.mark.usefixtures("unrendered")

CONDITIONS = ("right", "other", "mean", "none", "untrained_right", "untrained_other")
HIDDEN = ("swapped", "prior", "visible_text")
"""Conditions that a masked view has as well."""
BEYOND = {
    "right": 0.0,
    "other": 0.8,
    "mean": 0.5,
    "none": 0.6,
    "swapped": 0.3,
    "prior": 0.7,
    "visible_text": 0.2,
}


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What an evaluation is made with.

    Attributes:
        better: by how much `right` is below that of the plain evaluation.
        noise: seeds what is the run's own; losses of a control are hard or easy alike in every run.
    """

    better: float = 0.0
    controls: range = range(16)
    noise: int = 1
    seed: int = 0
    answer: str = "A pirate."
    answered: int = 1
    distractors: tuple[str, ...] = ("one",)
    target: str = "tiny"
    data: str = "d0"
    base_url: str | None = None


def evaluated(root: Path, name: str, **changes: Any) -> Refs:
    """Write an evaluation under the name `name:1`, made with `changes` to `Setup`."""
    made = Setup(**changes)
    key = hashlib.sha256(name.encode()).hexdigest()
    folder = root / "evaluate" / key[:16]
    hardness, own = np.random.default_rng(7).normal(3, 1, 99), np.random.default_rng(made.noise)
    losses = [
        {
            "split": "test",
            "view": view,
            "kind": "persona",
            "category": "sea",
            "control_id": f"c{i}",
            "example_id": f"e{i}{view}",
            "question": f"Question {q}?",
            "type": None,
            "condition": condition,
            "loss": hardness[i]
            + BEYOND.get(condition, 1.0)
            - made.better * (condition == "right")
            + own.normal(0, 0.1),
        }
        for view in ("control", "system")
        for i in made.controls
        for q in range(2)
        for condition in (*CONDITIONS, *(HIDDEN if view == "system" else ()))
    ]
    answers = [
        {
            "split": "test",
            "view": "control",
            "kind": "persona",
            "control_id": f"c{i}",
            "control": "You are a <b>pirate</b>.",
            "question": "Who?",
            "gold": "A pirate of old.",
            "example_id": f"e{i}control",
            "right": made.answer,
            "other": "A pirate.",
            **{f"{side}_log_probability": -1.0 for side in ("right", "other")},
            **{f"{side}_finished": True for side in ("right", "other")},
        }
        for i in range(made.answered)
    ]
    items = [
        {
            "split": "test",
            "view": "control",
            "control_id": f"c{i}",
            "example_id": f"e{i}control",
            "question": "Who?",
            "options": ["gold", *made.distractors],
            "condition": condition,
            "correct": float(made.better > 0 and condition == "right"),
        }
        for i in range(12)
        for condition in ("right", "none")
    ]
    write_table(folder / "data" / LOSSES_FILE, losses, LOSSES)
    write_table(folder / "data" / ANSWERS_FILE, answers, ANSWERS)
    write_table(folder / "data" / ITEMS_FILE, items, ITEMS)
    files = [
        [path.name, path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest()]
        for path in sorted((folder / "data").iterdir())
    ]
    where = {"model": f"/models/{made.target}", "adapter": None}
    record = {
        "kind": "evaluate",
        "key": key,
        "output": key,
        "files": files,
        "locations": where,
    }
    (folder / "record.json").write_text(json.dumps({**record, "inputs": {}, "counts": {}}))
    identity = {
        "config": {"seed": made.seed, "answers": made.answered, "base_url": made.base_url},
        "inputs": {
            role: {"key": made.data, "digest": made.data} for role in ("conversations", "questions")
        },
        "external": {"weights": hashlib.sha256(made.target.encode()).hexdigest()},
    }
    (folder / "identity.json").write_text(json.dumps(identity))
    refs = Refs(ArtifactRoot(root))
    refs.publish(name, [refs.resolve(str(folder))])
    return refs


def compared(refs: Refs, *names: str) -> Comparison:
    return compare_runs(find_runs(refs, names))


def case_of(comparison: Comparison, view: str = "control") -> ComparedView:
    return next(case for case in comparison.losses if case.view == view)


@pytest.fixture
def refs(tmp_path: Path) -> Refs:
    evaluated(tmp_path, "base")
    evaluated(tmp_path, "again", noise=2, seed=1)
    return evaluated(tmp_path, "better", better=0.4, noise=3, answer="A <i>nurse</i>.")


def test_a_better_run_is_marked_and_one_alike_is_not(refs: Refs) -> None:
    found = case_of(compared(refs, "base", "again", "better"))
    base, again, better = found.metrics["right"]
    assert (base.difference, base.p, base.differs) == (None, None, False)
    assert not again.differs
    assert better.differs
    assert better.difference is not None
    assert better.difference.estimate == pytest.approx(-0.4, abs=0.05)
    assert found.metrics["grounded_gain"][2].difference.estimate == pytest.approx(0.4, abs=0.1)  # type: ignore[union-attr]
    assert found.metrics["information_gain"][2].differs


def test_in_masked_views_the_hidden_gain_and_the_rivals_are_compared(
    refs: Refs, tmp_path: Path
) -> None:
    found = compared(refs, "base", "again", "better")
    assert not {"hidden_gain", "below_rivals"} & set(case_of(found).metrics)
    hidden = case_of(found, "system").metrics
    for metric, own in (("hidden_gain", 0.3), ("below_rivals", 0.2)):
        base, again, better = hidden[metric]
        assert base.estimate.estimate == pytest.approx(own, abs=0.1)
        assert not again.differs
        assert better.differs
        assert better.difference is not None
        assert better.difference.estimate == pytest.approx(0.4, abs=0.1)
    write_comparison(found, tmp_path / "page")
    figures = {path.name for path in (tmp_path / "page/figures").iterdir()}
    assert {"hidden-gain.svg", "below-rivals.svg"} <= figures


def test_differences_are_paired_by_control(refs: Refs) -> None:
    cell = case_of(compared(refs, "base", "better")).metrics["right"][1]
    assert cell.estimate is not None
    assert cell.difference is not None
    alone, paired = (leaf.high - leaf.low for leaf in (cell.estimate, cell.difference))  # type: ignore[operator]
    assert paired < alone / 5


def test_a_run_against_its_own_copy_differs_in_nothing(refs: Refs, tmp_path: Path) -> None:
    evaluated(tmp_path, "copy")
    for cells in case_of(compared(refs, "base", "copy")).metrics.values():
        assert cells[1].difference is not None
        assert cells[1].difference.estimate == 0
        assert (cells[1].p, cells[1].differs) == (1, False)


def test_only_shared_questions_count(refs: Refs, tmp_path: Path) -> None:
    evaluated(tmp_path, "part", controls=range(6, 40))
    found = compared(refs, "base", "part")
    assert {(case.view, case.controls, case.questions) for case in found.losses} == {
        ("control", 10, 20),
        ("system", 10, 20),
    }
    assert case_of(found).metrics["right"][0].estimate != (
        case_of(compared(refs, "base", "again")).metrics["right"][0].estimate
    )


def test_few_shared_controls_have_no_interval_and_no_mark(refs: Refs, tmp_path: Path) -> None:
    evaluated(tmp_path, "few", better=2.0, controls=range(12, 40))
    found = compared(refs, "base", "few")
    cell = case_of(found).metrics["right"][1]
    assert cell.difference is not None
    assert (cell.difference.n, cell.difference.low, cell.differs) == (4, None, False)
    page = " ".join(write_comparison(found, tmp_path / "page").read_text().split())
    assert "4 controls, 8 questions in common; an interval needs 8 controls" in page


def test_no_shared_question_is_refused(refs: Refs, tmp_path: Path) -> None:
    evaluated(tmp_path, "apart", controls=range(20, 30))
    with pytest.raises(DataError, match="base, apart have no question in common"):
        compared(refs, "base", "apart")


def test_runs_joined_by_plus_are_pooled(refs: Refs) -> None:
    found = compared(refs, "base+again", "better")
    assert [len(run.sets) for run in found.runs] == [2, 1]
    pool = case_of(found).metrics["right"][0].estimate
    parts = [
        case_of(compared(refs, name, "better")).metrics["right"][0] for name in ("base", "again")
    ]
    means = [part.estimate.estimate for part in parts if part.estimate.estimate is not None]
    assert pool is not None
    assert pool.estimate == pytest.approx(np.mean(means))


def test_what_another_seed_may_turn_is_not_marked(refs: Refs, tmp_path: Path) -> None:
    for name, better in (("lucky", 0.9), ("unlucky", 0.1)):
        evaluated(tmp_path, name, better=better, noise=int(10 * better))
    alone = case_of(compared(refs, "base", "unlucky")).metrics["right"][1]
    pools = case_of(compared(refs, "base+again", "lucky+unlucky")).metrics["right"][1]
    assert (alone.differs, pools.differs) == (True, False)
    assert pools.p is not None
    assert pools.p > 0.3
    assert pools.difference is not None
    assert pools.difference.estimate == pytest.approx(-0.5, abs=0.05)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (("base",), "expected at least two different REFs"),
        (("base", "base"), "expected at least two different REFs"),
        (("base", "nothing"), "nothing: names nothing"),
        (("base", "base+nothing"), "nothing: names nothing"),
        (("again", "base+base:1"), "base+base:1 names the same evaluation twice"),
    ],
)
def test_names_that_stand_for_no_run_are_refused(
    refs: Refs, names: tuple[str, ...], says: str
) -> None:
    with pytest.raises(RefError, match=re.escape(says)):
        find_runs(refs, names)


def test_damaged_numbers_are_not_compared(refs: Refs) -> None:
    path = refs.resolve("base", "evaluate").data / LOSSES_FILE
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(
        DamagedError, match=r"differs from the record's digest\. Run the experiment"
    ):
        find_runs(refs, ["base", "better"])


def test_settings_that_differ_are_named(refs: Refs) -> None:
    changes = changed_settings(find_runs(refs, ["base", "again", "better"]))
    assert [(run, step, change.field) for run, step, change in changes] == [
        ("again", "evaluate", "seed")
    ]


def test_identification_and_written_answers_are_compared_by_themselves(
    refs: Refs, tmp_path: Path
) -> None:
    evaluated(tmp_path, "many", answered=14)
    evaluated(tmp_path, "nurses", better=0.4, answered=14, answer="A nurse.")
    (case,) = compared(refs, "many", "nurses").written
    assert (case.view, case.controls, case.questions) == ("control", 14, 14)
    found = case.metrics["identified"][1]
    assert found.estimate is not None
    assert (found.estimate.estimate, found.estimate.n, found.differs) == (1.0, 12, True)
    sensitive = case.metrics["sensitive"][1]
    assert sensitive.difference is not None
    assert (sensitive.difference.estimate, sensitive.differs) == (1.0, True)
    assert (case.metrics["nonsense"][1].p, case.metrics["nonsense"][1].differs) == (1, False)
    assert "exact_match" not in case.metrics  # of extraction questions alone


def test_items_with_other_options_are_not_the_same_items(refs: Refs, tmp_path: Path) -> None:
    evaluated(tmp_path, "harder", distractors=("two", "three"))
    assert "identified" not in compared(refs, "base", "harder").written[0].metrics


def test_a_single_seed_is_said_to_be_one(refs: Refs, tmp_path: Path) -> None:
    pages = {
        names: write_comparison(compared(refs, *names), tmp_path / names[0]).read_text()
        for names in (("base+again", "better"), ("base", "better"))
    }
    said = [" ".join(page.split()) for page in pages.values()]
    assert "One seed.</b> better: one training run." in said[0]
    assert "One seed.</b> base, better: one training run each." in said[1]


@pytest.mark.parametrize(
    ("other", "field"),
    [
        ({"answered": 2}, "answers: 1 → 2"),
        ({"target": "tuned"}, "target.weights: "),
        ({"data": "d1"}, "data.conversations: "),
    ],
)
def test_runs_that_differ_by_more_than_their_seeds_are_no_pool(
    refs: Refs, tmp_path: Path, other: dict[str, Any], field: str
) -> None:
    evaluated(tmp_path, "longer", **other)
    with pytest.raises(RefError, match=r"pooled as base\+longer differ in more") as refused:
        compared(refs, "base+longer", "better")
    assert field in str(refused.value)
    assert "Compare them as separate runs." in str(refused.value)


def test_one_target_is_named_once(refs: Refs, tmp_path: Path) -> None:
    page = write_comparison(compared(refs, "base", "better"), tmp_path / "page").read_text()
    weights = hashlib.sha256(b"tiny").hexdigest()[:12]
    assert f"<i>target</i> tiny, weights {weights}" in page
    assert "Different targets." not in page


def test_different_targets_are_named_and_stand_among_the_settings(
    refs: Refs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluated(tmp_path, "tuned", target="tuned", noise=5)
    found = compared(refs, "base", "tuned")
    assert ("tuned", "evaluate", "target.weights") in [
        (run, step, change.field) for run, step, change in changed_settings(found.runs)
    ]
    page = " ".join(write_comparison(found, tmp_path / "page").read_text().split())
    assert "<i>target of base</i> tiny, weights" in page
    assert "<i>target of tuned</i> tuned, weights" in page
    assert "Different targets." in page
    with pytest.raises(SystemExit):
        main(["compare", "base", "tuned", "--root", str(tmp_path), "--out", str(tmp_path / "o")])
    shown = capsys.readouterr().out
    assert "base reads tiny, weights" in shown
    assert "tuned reads tuned, weights" in shown


def test_credentials_of_a_setting_are_not_shown(refs: Refs, tmp_path: Path) -> None:
    evaluated(tmp_path, "served", base_url="https://me:secret@host/v1?key=secret", noise=5)
    page = write_comparison(compared(refs, "base", "served"), tmp_path / "page")
    assert "https://host/v1" in page.read_text()
    assert all(
        b"secret" not in path.read_bytes() for path in page.parent.rglob("*") if path.is_file()
    )


def test_every_number_is_a_row(refs: Refs) -> None:
    found = compared(refs, "base", "better")
    rows = comparison_rows(found)
    losses = [row for row in rows if row["metric"] in METRICS]
    hidden = 2  # metrics of the masked view alone
    assert len(losses) == 2 * (2 * len(METRICS) - hidden)
    assert len(rows) == len(losses) + 2 * sum(len(case.metrics) for case in found.written)
    assert [row["difference_estimate"] is None for row in rows[:2]] == [True, False]


@pytest.fixture
def out(refs: Refs, tmp_path: Path) -> Path:
    return write_comparison(compared(refs, "base", "again", "better"), tmp_path / "out").parent


def test_the_page_stands_alone_with_its_figures_beside_it(out: Path) -> None:
    names = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    figures = {
        f"figures/{metric.replace('_', '-')}.{end}"
        for metric in METRICS
        for end in ("svg", "png", "csv")
    }
    assert names == {"compare.html", "comparison.csv"} | figures
    page = (out / "compare.html").read_text()
    assert not re.search(r"<(script|link|img)\b|https?://(?!www\.w3\.org)", page)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_the_page_shows_answers_side_by_side_escaped(out: Path) -> None:
    page = (out / "compare.html").read_text()
    assert "You are a &lt;b&gt;pirate&lt;/b&gt;." in page
    assert "A &lt;i&gt;nurse&lt;/i&gt;." in page
    assert page.count("<dd>A pirate.</dd>") == 2


def test_the_page_marks_what_differs(out: Path) -> None:
    page = (out / "compare.html").read_text()
    rows = list(csv.DictReader((out / "comparison.csv").open()))
    marked = [row for row in rows if row["differs"] == "True"]
    assert page.count('class="differs"') == len(marked) > 0
    assert {row["run"] for row in marked} == {"better"}
    losses = [row for row in marked if row["metric"] in METRICS]
    assert f"{len(losses)} of 20 differences" in page


def test_the_command_prints_numbers_and_the_pages_place(
    refs: Refs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["compare", "base", "better", "--root", str(refs.root.path), "--out"]
    with pytest.raises(SystemExit) as end:
        main([*words, str(tmp_path / "page")])
    assert not end.value.code
    told = capsys.readouterr().out
    assert "control (test): 16 controls, 32 questions" in told
    assert re.search(r"better +2\.\d+.*difference −0\.\d+.* \*\n", told)
    assert str(tmp_path / "page" / "compare.html") in told
    with pytest.raises(SystemExit):
        main([*words, str(tmp_path / "page"), "--json"])
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert {row["run"] for row in document["rows"]} == {"base", "better"}
