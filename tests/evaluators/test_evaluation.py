"""The step `evaluate` on the tiny model."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import chain
import pyarrow.parquet as pq
import pytest
from plain_pool import TwoWorkers

from activation_store.model_files.files import ModelFiles
from core.errors import DataError, StoreError
from core.progress import Progress, silent
from core.records.table_files import DROPPED_FILE, read_dropped
from core.records.tables import Question, Split, View
from decoder import scoring
from decoder.forward import compute_answer_losses
from decoder.sources.step_inputs import StepInputs
from evaluators.config import Baseline, EvaluateConfig
from evaluators.evaluation import TrainedDecoders, evaluate
from evaluators.slice_tasks import measure_ahead

VIEWS: tuple[View, ...] = ("control", "system")
CONFIG = EvaluateConfig(
    conditions=("right", "other", "mean", "none", "noise"),
    views=VIEWS,
    answers=2,
    max_answer_tokens=4,
    bootstrap=200,
    max_controls=10,
    identification=0,
)
CONDITIONS = {"right", "other", "mean", "none", "noise"}
SPLITS: Mapping[Split, int] = {"train": 6, "test": 12, "test_ood": 4}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> chain.Chain:
    rows = [
        *chain.rows_of(VIEWS, SPLITS),
        chain.row(99, split="test", kind="extractive"),  # alone of its kind
    ]
    return chain.make(tmp_path_factory.mktemp("chain"), rows)


@pytest.fixture(scope="module")
def decoder(made: chain.Chain, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("decoder")
    chain.decoder(made, nudge=0.2).save(folder)
    return folder


def places(
    made: chain.Chain, decoder: Path, folder: Path, baselines: Mapping[Baseline, Path] | None = None
) -> tuple[StepInputs, TrainedDecoders, Path, Path]:
    inputs, out, work = made.places(folder)
    return inputs, TrainedDecoders(decoder=decoder, baselines=baselines or {}), out, work


def judge(
    made: chain.Chain,
    decoder: Path,
    folder: Path,
    config: EvaluateConfig = CONFIG,
    *,
    model: ModelFiles | None = None,
    progress: Progress = silent,
    baselines: Mapping[Baseline, Path] | None = None,
) -> dict[str, Any]:
    """Evaluate into `folder`/out with `folder`/work; the tree."""
    inputs, decoders, out, work = places(made, decoder, folder, baselines)
    inputs = replace(inputs, model=model or inputs.model)
    found = evaluate(
        inputs, decoders, out, work, config=config, runtime=chain.RUNTIME, progress=progress
    )
    return dict(found.to_json()["reading"])


def outputs(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "out").iterdir())}


@pytest.fixture(scope="module")
def whole(
    made: chain.Chain, decoder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """Evaluate without interruption; return the folder and the metrics."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, judge(made, decoder, folder)


class ForwardPasses:
    """Counts the batches that are measured."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.n = 0
        inner = compute_answer_losses

        def counted(*args: Any) -> Any:
            self.n += 1
            return inner(*args)

        monkeypatch.setattr(scoring, "compute_answer_losses", counted)


def test_metrics_are_written_in_the_documented_shape(whole: tuple[Path, dict[str, Any]]) -> None:
    folder, returned = whole
    written = json.loads((folder / "out" / "metrics.json").read_bytes())
    assert written == {"reading": returned}
    assert {split: set(views) for split, views in returned.items()} == {
        "test": set(VIEWS),
        "test_ood": set(VIEWS),
    }
    for views in returned.values():
        for found in views.values():
            assert set(found["answer_loss"]) == CONDITIONS
            assert set(found["untrained"]) == {"right", "other"}
            leaves = [
                *found["answer_loss"].values(),
                *found["untrained"].values(),
                *(found[f"{name}_gain"] for name in ("grounded", "information")),
                found["below_untrained"],
            ]
            assert all(set(leaf) == {"estimate", "low", "high", "n"} for leaf in leaves)


def test_slices_that_others_measured_are_put_together(
    made: chain.Chain,
    decoder: Path,
    whole: tuple[Path, dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inputs, decoders, out, work = places(made, decoder, tmp_path)
    measure_ahead(
        inputs,
        decoders,
        work,
        config=CONFIG,
        runtime=chain.RUNTIME,
        foreign=False,
        pool=TwoWorkers(),
    )
    passes = ForwardPasses(monkeypatch)
    evaluate(inputs, decoders, out, work, config=CONFIG, runtime=chain.RUNTIME)
    assert passes.n == 0
    assert outputs(tmp_path) == outputs(whole[0])


def test_at_most_the_controls_that_were_asked_for(whole: tuple[Path, dict[str, Any]]) -> None:
    for view in VIEWS:
        leaf = whole[1]["test"][view]["answer_loss"]["right"]
        excluded = whole[1]["test"][view]["excluded"].get("no_other_control", 0)
        assert leaf["n"] + excluded == 10


def test_a_row_without_a_partner_is_left_out_and_counted(
    made: chain.Chain, decoder: Path, tmp_path: Path
) -> None:
    config = CONFIG.model_copy(update={"max_controls": None, "answers": 0, "views": ("control",)})
    found = judge(made, decoder, tmp_path, config)["test"]["control"]
    assert found["excluded"] == {"no_other_control": 1}
    assert found["answer_loss"]["right"]["n"] == 12


def test_questions_that_cannot_be_written_are_dropped_and_counted(tmp_path: Path) -> None:
    rows = chain.rows_of(splits={"train": 2, "test": 9})
    asked = [(conversation, own) for conversation, own in rows if conversation.split == "test"]
    first, second = asked[0], asked[2]  # two of the kind that has most
    token = Question(example_id=first[0].example_id, question="Is it <|im_end|>?", answer="no")
    first[1].append(token)
    second[1][:] = [Question(example_id=second[0].example_id, question="?", answer="")]
    made = chain.make(tmp_path / "chain", rows)
    (tmp_path / "decoder").mkdir()
    chain.decoder(made, nudge=0.2).save(tmp_path / "decoder")
    config = CONFIG.model_copy(
        update={"views": ("control",), "answers": 0, "conditions": ("right", "other")}
    )
    found = judge(made, tmp_path / "decoder", tmp_path, config)["test"]["control"]
    assert found["excluded"] == {"unwritable": 2}
    assert found["answer_loss"]["right"]["n"] == 8
    dropped = read_dropped(tmp_path / "out" / DROPPED_FILE)
    assert {row.reason for row in dropped} == {"unwritable"}
    assert any(first[0].example_id in row.where for row in dropped)


def test_every_single_loss_is_written(whole: tuple[Path, dict[str, Any]]) -> None:
    folder, returned = whole
    rows = pq.read_table(folder / "out" / "losses.parquet").to_pylist()
    names = CONDITIONS | {"untrained_right", "untrained_other"}
    assert {row["condition"] for row in rows} == names
    own = [r for r in rows if (r["split"], r["view"]) == ("test", "control")]
    right = [row["loss"] for row in own if row["condition"] == "right"]
    estimate = returned["test"]["control"]["answer_loss"]["right"]["estimate"]
    assert sum(right) / len(right) == pytest.approx(estimate)
    assert len({row["control_id"] for row in own}) * 2 == len(right)


def test_answers_stand_beside_gold(whole: tuple[Path, dict[str, Any]]) -> None:
    rows = pq.read_table(whole[0] / "out" / "answers.parquet").to_pylist()
    own = [row for row in rows if (row["split"], row["view"]) == ("test", "system")]
    assert len(own) == 2 * 2
    assert len({row["control"] for row in own}) == 2
    for row in own:
        assert row["gold"] in (row["category"], "yes")
        assert row["control"].startswith("You love")
        assert row["other_control"] != row["control"]
        assert isinstance(row["right"], str)


def test_a_decoder_with_other_weights_has_other_losses_and_the_same_untrained(
    made: chain.Chain, whole: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    (tmp_path / "decoder").mkdir()
    chain.decoder(made, seed=1, nudge=0.2).save(tmp_path / "decoder")
    found = judge(made, tmp_path / "decoder", tmp_path)["test"]["control"]
    first = whole[1]["test"]["control"]
    assert found["untrained"] == first["untrained"]
    assert found["answer_loss"] != first["answer_loss"]


def test_an_evaluation_that_was_killed_goes_on_and_gives_the_same(
    made: chain.Chain,
    decoder: Path,
    whole: tuple[Path, dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tools = {"config": CONFIG, "runtime": chain.RUNTIME}
    chain.killed(evaluate, 10, *places(made, decoder, tmp_path), **tools)
    kept = len(list((tmp_path / "work").iterdir()))
    assert kept >= 9
    passes = ForwardPasses(monkeypatch)
    judge(made, decoder, tmp_path)
    # 4 cases of 7 conditions in one batch each, and 4 parts with answers
    assert passes.n <= 4 * 7 - (kept - 1)
    assert outputs(tmp_path) == outputs(whole[0])


@pytest.mark.parametrize("harm", ["truncated", "of other rows"])
def test_a_part_that_cannot_be_used_is_measured_again(
    made: chain.Chain,
    decoder: Path,
    whole: tuple[Path, dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    harm: str,
) -> None:
    shutil.copytree(whole[0] / "work", tmp_path / "work")
    part = tmp_path / "work" / "test.control.mean.json"
    if harm == "truncated":
        part.write_bytes(part.read_bytes()[:-20])
    else:
        shutil.copy(tmp_path / "work" / "test_ood.control.mean.json", part)
    passes = ForwardPasses(monkeypatch)
    judge(made, decoder, tmp_path)
    assert passes.n == 1
    assert outputs(tmp_path) == outputs(whole[0])


def test_progress_ends_with_all_conditions(
    made: chain.Chain, decoder: Path, whole: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    shutil.copytree(whole[0] / "work", tmp_path / "work")
    told: list[tuple[int, int]] = []
    judge(made, decoder, tmp_path, progress=lambda done, total, note="": told.append((done, total)))
    # each slice has 7 conditions, answers, and the control effect, which needs completions
    assert told == [(i, 36) for i in range(1, 37)]


def test_masked_views_can_be_judged_with_the_control_visible_too(
    made: chain.Chain, decoder: Path, whole: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    config = CONFIG.model_copy(update={"visible_too": True, "splits": ("test",), "answers": 0})
    found = judge(made, decoder, tmp_path, config)["test"]
    assert list(found) == ["control", "system", "system+visible"]
    expected = {
        k: v for k, v in whole[1]["test"]["system"].items() if k not in ("answers", "generic")
    }
    assert found["system"] == expected
    assert found["system"]["answer_loss"] != found["system+visible"]["answer_loss"]


def test_a_decoder_without_masking_is_judged_under_another_name(
    made: chain.Chain, tmp_path: Path
) -> None:
    (tmp_path / "decoder").mkdir()
    chain.decoder(made, nudge=0.2, masking=False).save(tmp_path / "decoder")
    config = CONFIG.model_copy(update={"splits": ("test_ood",), "answers": 0})
    found = judge(made, tmp_path / "decoder", tmp_path, config)["test_ood"]
    assert list(found) == ["control", "system+visible"]


def test_splits_without_rows_are_left_out(made: chain.Chain, decoder: Path, tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"splits": ("validation", "test_ood"), "answers": 0})
    assert list(judge(made, decoder, tmp_path, config)) == ["test_ood"]


def test_nothing_to_judge_at_all_is_refused(
    made: chain.Chain, decoder: Path, tmp_path: Path
) -> None:
    config = CONFIG.model_copy(update={"splits": ("validation",)})
    with pytest.raises(DataError, match="no row in splits validation and views control, system"):
        judge(made, decoder, tmp_path, config)


def test_another_model_is_refused(made: chain.Chain, decoder: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="another target: weights"):
        judge(made, decoder, tmp_path, model=chain.model(1))


def test_a_decoder_of_a_layer_that_is_not_stored_is_refused(
    made: chain.Chain, decoder: Path, tmp_path: Path
) -> None:
    sidecar = json.loads((decoder / "latentqa.json").read_bytes())
    (tmp_path / "decoder").mkdir()
    for path in decoder.iterdir():
        (tmp_path / "decoder" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "decoder" / "latentqa.json").write_text(json.dumps({**sidecar, "read_layer": 1}))
    with pytest.raises(StoreError, match=r"it has layers \[2\], got 1"):
        judge(made, tmp_path / "decoder", tmp_path)


def test_every_number_is_a_row_of_results_with_its_groups(
    whole: tuple[Path, dict[str, Any]],
) -> None:
    rows = pq.read_table(whole[0] / "out" / "results.parquet").to_pylist()
    found = {(r["split"], r["view"], r["group"], r["metric"]): r for r in rows}
    assert len(found) == len(rows)
    for split, views in whole[1].items():
        for view, metrics in views.items():
            for name in ("grounded_gain", "information_gain", "below_untrained"):
                row = found[split, view, "all", name]
                assert {key: row[key] for key in metrics[name]} == metrics[name]
            for metric, sides in metrics["answers"].items():
                row = found[split, view, "all", f"answers.{metric}.difference"]
                assert row["estimate"] == sides["difference"]["estimate"]
    groups = {row["group"] for row in rows if row["split"] == "test"}
    assert {"all", "kind=persona", "kind=goal", "type=unstated"} <= groups
    assert any(group.startswith("category=persona/") for group in groups)
    few = found["test_ood", "control", "all", "grounded_gain"]
    assert few["note"] == f"{few['n']} controls; an interval needs 8"


def test_answers_are_measured(whole: tuple[Path, dict[str, Any]]) -> None:
    found = whole[1]["test"]["control"]["answers"]
    assert {"sensitive", "vague", "nonsense", "repetitive", "confidence"} <= set(found)
    assert found["confidence"]["right"]["estimate"] < 0
    assert found["sensitive"]["right"]["n"] == 2


IDENTIFY = CONFIG.model_copy(
    update={"identification": 3, "splits": ("test",), "views": ("control",), "answers": 0}
)


@pytest.fixture(scope="module")
def identified(
    made: chain.Chain, decoder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("identified")
    return folder, judge(made, decoder, folder, IDENTIFY)["test"]["control"]


def test_gold_is_identified_among_answers_to_the_same_question(
    identified: tuple[Path, dict[str, Any]], whole: tuple[Path, dict[str, Any]]
) -> None:
    folder, found = identified
    n = found["answer_loss"]["right"]["n"]
    # to the second question all controls have one answer
    items = {"asked": n, "left_out": n}
    assert {name: found["identification"][name] for name in items} == items
    assert found["answer_loss"] == whole[1]["test"]["control"]["answer_loss"]
    rows = pq.read_table(folder / "out" / "items.parquet").to_pylist()
    assert {row["condition"] for row in rows} == {"right", "other", "none"}
    own = [row for row in rows if row["condition"] == "right"]
    accuracy = found["identification"]["accuracy"]["right"]["estimate"]
    assert sum(row["correct"] for row in own) / len(own) == pytest.approx(accuracy)
    assert all(len(row["options"]) == len(row["losses"]) == 3 for row in rows)


def test_identification_goes_on_where_it_was_killed(
    made: chain.Chain,
    decoder: Path,
    identified: tuple[Path, dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copytree(identified[0] / "work", tmp_path / "work")
    (tmp_path / "work" / "test.control.identify_other.json").unlink()
    passes = ForwardPasses(monkeypatch)
    judge(made, decoder, tmp_path, IDENTIFY)
    n = identified[1]["answer_loss"]["right"]["n"]
    assert passes.n == -(-n // 4)  # batches of four rows
    assert outputs(tmp_path) == outputs(identified[0])


def test_a_store_of_one_layer_leaves_wrong_layer_out_and_says_so(
    made: chain.Chain, decoder: Path, tmp_path: Path
) -> None:
    config = EvaluateConfig.model_validate(
        {**IDENTIFY.model_dump(), "identification": 0, "conditions": [*CONDITIONS, "wrong_layer"]}
    )
    told: list[tuple[int, int]] = []
    found = judge(
        *(made, decoder, tmp_path, config),
        progress=lambda done, total, note="": told.append((done, total)),
    )["test"]["control"]
    assert set(found["answer_loss"]) == CONDITIONS
    why = "the store has layer 2 alone; add another to dump.layers"
    assert found["left_out"] == {"wrong_layer": why}
    assert told[-1] == (8, 8)  # the control effect, which needs completions, is one of them


def test_a_store_of_two_layers_has_wrong_layer(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("layers")
    rows = chain.rows_of(("control",), {"train": 2, "test": 6})
    two = chain.make(folder / "made", rows, layers=(0, chain.LAYER))
    (folder / "decoder").mkdir()
    chain.decoder(two, nudge=0.2).save(folder / "decoder")
    config = EvaluateConfig(
        conditions=("right", "other", "wrong_layer"), splits=("test",), answers=0, bootstrap=100
    )
    found = judge(two, folder / "decoder", folder, config)["test"]["control"]
    assert "left_out" not in found
    losses_ = found["answer_loss"]
    assert losses_["wrong_layer"]["estimate"] != losses_["right"]["estimate"]


def test_trained_baselines_are_columns_and_prior_is_a_rival(
    made: chain.Chain, decoder: Path, whole: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folders: dict[Baseline, Path] = {}
    names: tuple[Baseline, ...] = ("prior", "text")
    for seed, name in enumerate(names, 5):
        folders[name] = tmp_path / name
        folders[name].mkdir()
        chain.decoder(made, seed=seed, nudge=0.2).save(folders[name])
    config = EvaluateConfig.model_validate(
        {**IDENTIFY.model_dump(), "baselines": ["prior", "text"], "answers": 2}
    )
    found = judge(made, decoder, tmp_path, config, baselines=folders)["test"]["control"]
    plain = whole[1]["test"]["control"]
    losses_ = found["answer_loss"]
    # the decoder is itself again after each baseline
    assert {k: v for k, v in losses_.items() if k in CONDITIONS} == plain["answer_loss"]
    assert found["answers"] == plain["answers"]
    alone = judge(made, folders["prior"], tmp_path / "alone", CONFIG)["test"]["control"]
    # the prior decoder is given another control's activations
    assert losses_["prior"]["estimate"] == pytest.approx(alone["answer_loss"]["other"]["estimate"])
    assert losses_["text"]["estimate"] not in [own["estimate"] for own in losses_.values()][:-1]
    assert set(found["identification"]["accuracy"]) == {"right", "other", "none", "prior"}
    rivals = [losses_[name]["estimate"] for name in ("other", "mean", "none", "prior")]
    gain = min(rivals) - losses_["right"]["estimate"]
    assert found["information_gain"]["estimate"] == pytest.approx(gain)


def test_a_baseline_of_another_target_is_refused(
    made: chain.Chain, decoder: Path, tmp_path: Path
) -> None:
    (tmp_path / "prior").mkdir()
    for path in decoder.iterdir():
        shutil.copy(path, tmp_path / "prior" / path.name)
    sidecar = json.loads((decoder / "latentqa.json").read_bytes())
    sidecar["target"]["weights"] = "0" * 64
    (tmp_path / "prior" / "latentqa.json").write_text(json.dumps(sidecar))
    config = EvaluateConfig.model_validate({**CONFIG.model_dump(), "baselines": ["prior"]})
    with pytest.raises(StoreError, match="reads target"):
        judge(made, decoder, tmp_path, config, baselines={"prior": tmp_path / "prior"})


def test_evaluation_prints_and_warns_nothing(
    made: chain.Chain, decoder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = CONFIG.model_copy(update={"splits": ("test_ood",), "views": ("control",)})
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        judge(made, decoder, tmp_path, config)
    assert capfd.readouterr() == ("", "")
    assert [str(w.message) for w in told if w.category is not DeprecationWarning] == []
