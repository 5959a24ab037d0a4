"""Several writers of one store: shards are handed out, and the bytes are those of one writer."""

from __future__ import annotations

import copy
import multiprocessing
import random
import threading
from pathlib import Path

import chain
import pytest
import stores
import torch
from store_kills import kill_until_done, seconds_of_a_writer

from activation_store.layout.commit_records import list_commit_paths
from activation_store.layout.plan import Plan
from activation_store.layout.plan_files import write_plan
from activation_store.layout.root_record import root_digest
from activation_store.model_files.files import ModelFiles
from activation_store.target.load import load_model
from activation_store.tokens.token_table import TokenTable
from activation_store.write.capture_shards import capture_shards
from activation_store.write.dump import dump
from activation_store.write.prepared import prepare_dump

Started = tuple[Path, Plan, TokenTable, torch.nn.Module]


@pytest.fixture
def started(rows: Path, model: ModelFiles, tmp_path: Path) -> Started:
    """Return a store with its plan, its rows and a model: out, plan, tokens, net."""
    prepared = prepare_dump(rows, stores.CAPTURE, model)
    plan = prepared.make_plan()
    out = tmp_path / "started"
    write_plan(out, plan, prepared.tokens)
    net = load_model(model, dtype="float32", device=torch.device("cpu"))
    return out, plan, prepared.tokens, net


def activations(root: Path) -> dict[str, bytes]:
    """Return the files of the shards and their records."""
    parts = ("acts/", "tokens/", "segments/", "commits/")
    return {n: data for n, data in stores.contents(root).items() if n.startswith(parts)}


def test_two_processes_write_the_bytes_of_one(
    rows: Path, model: ModelFiles, whole: Path, tmp_path: Path
) -> None:
    told: list[int] = []
    runtime = stores.RUNTIME.model_copy(update={"workers": 2})
    with chain.forked_processes():
        result = dump(
            rows,
            tmp_path,
            config=stores.CAPTURE,
            model=model,
            runtime=runtime,
            progress=lambda done, total, note="": told.append(done),
        )
    assert stores.contents(tmp_path) == stores.contents(whole)
    assert result.forward_tokens == result.tokens
    assert told == sorted(told)
    assert root_digest(tmp_path) == root_digest(whole) is not None


def test_more_threads_leave_the_same_bytes(
    rows: Path, model: ModelFiles, whole: Path, tmp_path: Path
) -> None:
    runtime = stores.RUNTIME.model_copy(update={"threads": 3})
    before = torch.get_num_threads()
    try:
        dump(rows, tmp_path, config=stores.CAPTURE, model=model, runtime=runtime)
    finally:
        torch.set_num_threads(before)
    assert stores.contents(tmp_path) == stores.contents(whole)


@pytest.mark.parametrize("shared", [True, False])
def test_writers_beside_each_other_leave_the_bytes_of_one(
    shared: bool, started: Started, whole: Path
) -> None:
    out, plan, tokens, net = started
    done: list[int] = []

    def write(shards: list[int]) -> None:
        torch.set_num_threads(1)  # a thread's own setting
        own = copy.deepcopy(net)
        done.append(capture_shards(plan, shards, out=out, tokens=tokens, net=own))

    every = list(range(plan.n_shards))
    shares = [every[i::2] for i in range(2)] if shared else [every] * 3
    threads = [threading.Thread(target=write, args=(share,)) for share in shares]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == len(shares)
    assert not shared or sum(done) == plan.tokens
    assert activations(out) == activations(whole)


def test_a_committed_shard_is_passed_over(started: Started) -> None:
    out, plan, tokens, net = started
    first = capture_shards(plan, [0, 2], out=out, tokens=tokens, net=net)
    again = capture_shards(plan, [2, 0, 1], out=out, tokens=tokens, net=net)
    assert first == plan.shard_tokens(0) + plan.shard_tokens(2)
    assert again == plan.shard_tokens(1)
    assert len(list_commit_paths(out)) == 3


@pytest.mark.prove
@pytest.mark.parametrize("runner", ["processes", "threads"])
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_any_number_of_processes_leaves_the_same_root_digest(
    workers: int, runner: str, rows: Path, model: ModelFiles, whole: Path, tmp_path: Path
) -> None:
    runtime = stores.RUNTIME.model_copy(update={"workers": workers, "task_runner": runner})
    dump(rows, tmp_path, config=stores.CAPTURE, model=model, runtime=runtime)
    assert root_digest(tmp_path) == root_digest(whole) is not None
    assert stores.contents(tmp_path) == stores.contents(whole)


def test_a_killed_process_loses_no_shard(
    rows: Path, model: ModelFiles, whole: Path, tmp_path: Path
) -> None:
    runtime = stores.RUNTIME.model_copy(update={"workers": 2})
    killed: list[int] = []

    def kill(done: int, total: int, note: str = "") -> None:
        for child in multiprocessing.active_children():
            if not killed and child.pid:
                child.kill()
                killed.append(child.pid)

    with chain.forked_processes():
        dump(rows, tmp_path, config=stores.CAPTURE, model=model, runtime=runtime, progress=kill)
    assert killed
    assert stores.contents(tmp_path) == stores.contents(whole)


def test_writers_that_are_killed_leave_the_bytes_of_an_undisturbed_run(
    rows: Path, model: ModelFiles, whole: Path, tmp_path: Path
) -> None:
    draw = random.Random(0)
    longest = seconds_of_a_writer(rows, tmp_path / "timed", model)
    kills, stores_done = 0, 0
    while kills < 3:  # a kill may come when its writer has ended
        out = tmp_path / str(stores_done)
        kills += kill_until_done(draw, rows, out, model, whole, longest)
        stores_done += 1
