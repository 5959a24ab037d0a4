"""Run, rerun, change, damage, kill: the whole chain as a user runs it, on a tiny model."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import tiny
from forks import Forked, ForkServer, fork_server
from published_chain import LABELS, Chain, cached


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Chain:
    """Make a chain that has run undisturbed; its tests copy it before they change it."""
    chain = Chain(tmp_path_factory.mktemp("chain"), model)
    start = time.perf_counter()
    chain.document = chain.run()
    chain.seconds = time.perf_counter() - start
    return chain


@pytest.fixture
def chain(done: Chain, tmp_path: Path) -> Chain:
    """Make a copy of the finished chain."""
    own = Chain(tmp_path, config=done.config)
    shutil.copytree(done.root, own.root, symlinks=True)
    return own


def test_a_run_says_what_was_made_and_learned(done: Chain) -> None:
    document = done.document
    assert [s["step"] for s in document["steps"]] == [
        *("conversations", "questions", "dump", "train", "evaluate")
    ]
    metrics = document["metrics"]
    assert metrics["data"]["controls"] == 2 * LABELS
    assert metrics["store"]["sequences"] == 4 * LABELS
    assert metrics["train"]["steps"] == 6
    leaf = metrics["reading"]["test"]["control"]["information_gain"]
    assert set(leaf) == {"estimate", "low", "high", "n"}
    assert leaf["low"] <= leaf["estimate"] <= leaf["high"]
    assert Path(document["report"]).read_text().startswith("<!doctype html>")


RECORDED = {
    ("control", "right"): 6.371480,
    ("control", "other"): 6.370971,
    ("control", "none"): 6.490477,
    ("control", "untrained_right"): 7.022129,
    ("stimulus", "right"): 6.278528,
    ("stimulus", "other"): 6.276738,
    ("stimulus", "untrained_right"): 6.947899,
    ("system", "right"): 6.139811,
    ("system", "other"): 6.141144,
    ("system", "untrained_right"): 6.850922,
}
"""Mean answer losses of this chain, by the code before packages were laid out anew (47390a1)."""


def test_losses_are_those_recorded_of_earlier_code(done: Chain) -> None:
    (path,) = done.root.glob("evaluate/*/data/losses.parquet")
    found: dict[tuple[str, str], list[float]] = {}
    for row in pq.read_table(path).to_pylist():
        found.setdefault((row["view"], row["condition"]), []).append(row["loss"])
    means = {name: sum(found[name]) / len(found[name]) for name in RECORDED}
    assert means == pytest.approx(RECORDED, abs=2e-5)


def test_a_rerun_is_all_hits_and_loads_no_model(chain: Chain) -> None:
    script = (
        "import sys; from latentqa.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit as end:\n    assert not end.code\n"
        "heavy = {'torch', 'transformers', 'prefect', 'matplotlib', 'datasets'}\n"
        "found = heavy & set(sys.modules)\n"
        "assert not found, found\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", script, *chain.words()],
        capture_output=True,
        text=True,
        env=chain.environment(),
    )
    assert found.returncode == 0, found.stderr
    assert all(cached(json.loads(found.stdout)).values())


def test_another_evaluation_keeps_all_but_evaluate(chain: Chain) -> None:
    assert cached(chain.run("--set", "evaluate.seed=1")) == {
        **dict.fromkeys(("conversations", "questions", "dump", "train"), True),
        "evaluate": False,
    }


def test_another_read_layer_keeps_the_data(chain: Chain) -> None:
    assert cached(chain.run("--set", "dump.layers=[2]")) == {
        **dict.fromkeys(("conversations", "questions"), True),
        **dict.fromkeys(("dump", "train", "evaluate"), False),
    }


def test_a_deleted_store_is_made_again_and_what_stands_on_it_stays(chain: Chain) -> None:
    before = chain.digests()
    shutil.rmtree(next((chain.root / "dump").glob("[0-9a-f]*[0-9a-f]")))
    found = cached(chain.run())
    assert [step for step, hit in found.items() if not hit] == ["dump"]
    assert chain.digests() == before


def test_a_flipped_byte_is_noticed_when_it_is_read(chain: Chain) -> None:
    before = chain.digests()
    shard = next(chain.root.glob("dump/*/data/acts/L1/c.0.0"))
    content = bytearray(shard.read_bytes())
    content[1000] ^= 1
    shard.write_bytes(content)
    assert chain.latentqa("verify").returncode == 1
    shutil.rmtree(next((chain.root / "train").glob("[0-9a-f]*[0-9a-f]")))
    found = cached(chain.run())
    assert not found["train"]
    assert chain.digests() == before
    assert chain.latentqa("verify").returncode == 0


@pytest.fixture(scope="module")
def forks(done: Chain) -> Iterator[ForkServer]:
    """Start a process that has imported what a run needs."""
    heavy = ("trainers.training", "evaluators.evaluation", "pipelines.reports.run.report", "peft")
    with fork_server(done.folder / "forks", done.environment(), "pytest", *heavy) as made:
        yield made


UNRENDERED = f"""
import sys
sys.path.append({str(Path(__file__).parent)!r})
from latentqa.cli import main
from page_figures import unrendered_figures
with unrendered_figures():
    main(sys.argv[1:])
"""
"""A run as `done` was made."""


def test_a_run_killed_at_random_moments_ends_as_an_undisturbed_one(
    done: Chain, forks: ForkServer, tmp_path: Path
) -> None:
    own = Chain(tmp_path, config=done.config)

    def start() -> Forked:
        words = ("-c", UNRENDERED, *own.words())
        return forks.start(*words, cwd=tmp_path, env=own.environment())

    draw = random.Random(0)
    for _ in range(2):
        process = start()
        time.sleep(draw.uniform(0, done.seconds))
        process.stop()
    last = start()
    _, told = last.communicate(240)
    assert last.returncode == 0, told
    assert own.digests() == done.digests()
    assert not list(own.root.glob("*/*.partial"))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--set", "train.lerning_rate=1"], "train.learning_rate"),
        (["--set", "dump.model=./no/such/model"], "nothing is there"),
        (["--set", "data.path=./no/such/folder"], "no/such/folder: no such folder"),
        (["--set", "dump.layers=[9]"], "blocks 0 to 3"),
        (["--set", "runtime.device=cuda:7"], "cuda:7"),
    ],
)
def test_bad_input_is_one_line_and_leaves_earlier_work(
    chain: Chain, words: list[str], says: str
) -> None:
    before = chain.digests()
    if "runtime" in words[1]:
        words = [*words, "--set", "evaluate.seed=7"]
    error = chain.run(*words, code=2)["error"]
    last = error.strip().splitlines()[-1]
    assert says in last
    assert "Traceback" not in error
    assert before.items() <= chain.digests().items()


def test_smoke_runs_every_step_of_the_users_config(chain: Chain) -> None:
    document = chain.run("--smoke")
    assert document["experiment"] == "tiny-smoke"
    assert document["metrics"]["train"]["steps"] == 2
    assert Path(document["report"]).is_file()


def test_a_decoder_is_asked(chain: Chain) -> None:
    found = chain.latentqa(*("ask", "tiny", "--prompt", "Be a pirate.", "--question", "Who is it?"))
    assert found.returncode == 0, found.stderr
    assert "Who is it?" in found.stdout
