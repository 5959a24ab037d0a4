"""A decoder on the rows of an experiment whose target is a fine-tune of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import tiny
from page_figures import unrendered_figures
from published_chain import CONFIG, write_published

from core.errors import RefError
from evaluators.measure.result_files import RESULTS_FILE
from latentqa.cli import main
from pipelines.artifacts.refs import Refs
from pipelines.artifacts.root import ArtifactRoot
from pipelines.reports.compare.comparison import compare_runs, comparison_rows
from pipelines.reports.compare.page import write_comparison
from pipelines.reports.compare.runs import changed_settings, find_runs

BASELINES = "baselines: [{}]\n  splits: [test]\n  views: [control]"


def run_crossed(*words: str) -> int:
    """Run `latentqa crossed` and return its exit code."""
    with unrendered_figures(), pytest.raises(SystemExit) as done:
        main(["crossed", *words])
    assert isinstance(done.value.code, int)
    return done.value.code


@pytest.fixture(scope="module")
def configs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Write an experiment with the tiny model, and one with a fine-tune of it."""
    folder = tmp_path_factory.mktemp("crossed")
    data, model = write_published(folder / "data"), tiny.save(folder / "model")
    adapter = tiny.save_adapter(folder / "adapter")
    base = CONFIG.format(data=data, model=model).replace("max_steps: 6", "max_steps: 2")
    base = base.replace("evaluations: 3", "evaluations: 1")
    texts = {
        "base": base.replace("splits: [test]", BASELINES.format("prior")),
        "tuned": base.replace(f"model: {model}", f"model: {model}, adapter: {adapter}").replace(
            "splits: [test]", BASELINES.format("prior, text")
        ),
    }
    for name, text in texts.items():
        (folder / f"{name}.yaml").write_text(
            text.replace("experiment: tiny", f"experiment: {name}")
        )
    return [folder / f"{name}.yaml" for name in texts]


@pytest.fixture(scope="module")
def root(configs: list[Path]) -> Path:
    """Cross the two, and return the root."""
    place = configs[0].parent / "root"
    words = (*map(str, configs), "--root", str(place), "--foreign-target")
    assert run_crossed(*words) == 0
    return place


def evaluation(root: Path, name: str) -> Any:
    return Refs(ArtifactRoot(root)).resolve(name, "evaluate")


def test_without_the_flag_both_targets_are_named_and_nothing_runs(
    configs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_crossed(*map(str, configs), "--root", str(tmp_path / "root")) == 2
    said = capsys.readouterr().err
    assert "base and tuned have different targets: adapter is – in base and" in said
    assert "--foreign-target" in said
    assert not (tmp_path / "root").exists()


def test_each_decoder_reads_the_others_target_under_a_name(root: Path) -> None:
    for name, rows in (("base_on_tuned", "tuned"), ("tuned_on_base", "base")):
        found, own = evaluation(root, name), evaluation(root, rows)
        assert found.identity["config"]["foreign_target"] is True
        assert found.identity["inputs"]["dump"] == own.identity["inputs"]["dump"]
        assert found.identity["inputs"]["train"] != own.identity["inputs"]["train"]
        assert found.record["counts"]["foreign_target"]["differs"] == ["adapter"]
        table = pq.read_table(found.data / RESULTS_FILE)
        assert set(table["foreign_target"].to_pylist()) == {True}
        assert set(pq.read_table(own.data / RESULTS_FILE)["foreign_target"].to_pylist()) == {False}


def test_baselines_on_a_foreign_target_are_the_decoders_own(root: Path) -> None:
    found = evaluation(root, "base_on_tuned")
    own = evaluation(root, "base")
    assert found.identity["inputs"]["train_prior"] == own.identity["inputs"]["train_prior"]
    assert "train_text" not in found.identity["inputs"]
    assert found.identity["config"]["baselines"] == ["prior"]


def test_the_report_of_a_foreign_evaluation_says_so(root: Path) -> None:
    refs = Refs(ArtifactRoot(root))
    pages = {
        name: (refs.resolve(name, "report").data / "report.html").read_text()
        for name in ("base", "base_on_tuned")
    }
    assert "Foreign target." not in pages["base"]
    assert "Foreign target." in pages["base_on_tuned"]
    assert "<h1>base_on_tuned</h1>" in pages["base_on_tuned"]
    assert "latentqa crossed" in pages["base_on_tuned"]


def test_crossed_again_all_is_found(
    configs: list[Path], root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(root.glob("*/*/record.json"))
    assert run_crossed(*map(str, configs), "--root", str(root), "--foreign-target") == 0
    shown = capsys.readouterr().out
    assert "| base | tuned (foreign target) | test | control |" in shown
    assert "| base | base | test | control |" in shown
    assert sorted(root.glob("*/*/record.json")) == before


def test_a_decoder_is_compared_with_itself_on_a_target_that_moved(
    root: Path, tmp_path: Path
) -> None:
    runs = find_runs(Refs(ArtifactRoot(root)), ["base", "base_on_tuned"])
    found = compare_runs(runs)
    assert found.losses[0].controls > 0
    changed = {change.field: change.right for _, _, change in changed_settings(runs)}
    assert changed["foreign_target"] is True
    assert {row["run"]: row["foreign_target"] for row in comparison_rows(found)} == {
        "base": False,
        "base_on_tuned": True,
    }
    page = write_comparison(found, tmp_path).read_text()
    assert page.count("foreign target") == 1
    assert "One seed." not in page  # it is one decoder


def test_two_evaluations_of_one_decoder_are_no_pool(root: Path) -> None:
    with pytest.raises(RefError, match="base_on_tuned names the same decoder twice"):
        find_runs(Refs(ArtifactRoot(root)), ["tuned", "base+base_on_tuned"])
