"""Several writers of one store: the bytes of one, no shard twice, none lost."""

from __future__ import annotations

import copy
import dataclasses
import functools
import multiprocessing
import os
import random
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import stores
import torch
from store_kills import kill_until_done

from activation_store.layout.commit_records import commit_path, commit_records
from activation_store.layout.plan import make_plan, write_plan
from activation_store.layout.root_record import root_digest
from activation_store.read.reader import ActivationStore
from activation_store.target import lanes
from activation_store.target.files import ModelFiles
from activation_store.target.lanes import Lanes
from activation_store.target.load import load_model, load_tokenizer
from activation_store.target.tokens import tokenize
from activation_store.write import writer
from activation_store.write.dump import dump
from activation_store.write.leases import Leases
from activation_store.write.shard_builder import Filling
from activation_store.write.writer import Filled, Writer
from core.table_files import read_conversations


@pytest.fixture
def begun(rows: Path, model: ModelFiles, tmp_path: Path):
    """A store with its plan, its rows and a model: out, plan, tokens, net."""
    tokenizer = load_tokenizer(model)
    tokens = {
        row.example_id: tokenize(tokenizer, row.messages)
        for row in read_conversations(rows / "conversations.parquet")
    }
    plan = make_plan(
        tokens, config=stores.CAPTURE, layers=(0, 2), d_model=32, target=model.digests()
    )
    out = tmp_path / "begun"
    write_plan(out, plan)
    return out, plan, tokens, load_model(model, dtype="float32", device=torch.device("cpu"))


def activations(root: Path) -> dict[str, bytes]:
    """The files of the shards and their records."""
    parts = ("acts/", "tokens/", "segments/", "commits/")
    return {n: data for n, data in stores.contents(root).items() if n.startswith(parts)}


def test_two_processes_write_the_bytes_of_one(
    rows: Path, model: ModelFiles, whole: Path, tmp_path: Path
) -> None:
    runtime = stores.RUNTIME.model_copy(update={"workers": 2})
    counts = dump(rows, tmp_path, config=stores.CAPTURE, model=model, runtime=runtime)
    assert stores.contents(tmp_path) == stores.contents(whole)
    assert counts["forward_tokens"] == counts["tokens"]
    assert root_digest(tmp_path) == root_digest(whole) is not None


@pytest.mark.parametrize("threads", [2, 3])
def test_passes_side_by_side_leave_the_bytes_of_one_after_the_other(
    threads: int, rows: Path, model: ModelFiles, whole: Path, tmp_path: Path
) -> None:
    told: list[int] = []
    runtime = stores.RUNTIME.model_copy(update={"threads": threads})
    before = torch.get_num_threads()
    try:
        dump(
            rows,
            tmp_path,
            config=stores.CAPTURE,
            model=model,
            runtime=runtime,
            progress=lambda done, total, note="": told.append(done),
        )
    finally:
        torch.set_num_threads(before)
    assert stores.contents(tmp_path) == stores.contents(whole)
    assert told == sorted(told)


@pytest.mark.parametrize("writers", [2, 4])
def test_threads_of_one_process_do_each_shard_once(writers: int, begun, whole: Path) -> None:
    out, plan, tokens, net = begun
    done: list[Filled] = []

    def write() -> None:
        torch.set_num_threads(1)  # a thread's own setting
        done.append(Writer(out, plan, tokens, copy.deepcopy(net)).fill(range(plan.n_shards)))

    threads = [threading.Thread(target=write) for _ in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(filled.tokens for filled in done) == plan.tokens
    assert activations(out) == activations(whole)


def test_a_writer_that_lost_its_shard_goes_on_with_another(
    begun, whole: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    out, plan, tokens, net = begun
    plain, other = Filling.put, Leases(out)
    lost: list[int] = []

    def slow(filling: Filling, *rest) -> None:
        plain(filling, *rest)
        if filling.whole and not lost:  # silent for too long once: the shard is taken over
            (out / "leases" / "table.json").unlink()
            lost.append(other.take([filling.shard]) or 0)
            threading.Timer(0.3, other.release, [filling.shard]).start()  # and then given back

    monkeypatch.setattr(Filling, "put", slow)
    filled = Writer(out, plan, tokens, net).fill(range(plan.n_shards))
    assert f"shard {lost[0]}: this writer was silent" in caplog.text
    assert filled.tokens == plan.tokens
    assert activations(out) == activations(whole)


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("lanes", [1, 3])
def test_a_shard_that_is_lost_while_it_is_filled_is_done_by_whoever_has_it_then(
    last: bool, lanes: int, begun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, plan, tokens, net = begun
    plan = dataclasses.replace(plan, batch_tokens=150)  # several parts a shard
    whole, out = tmp_path / "whole", tmp_path / "out"
    for folder in (whole, out):
        write_plan(folder, plan)
    Writer(whole, plan, tokens, net).fill(range(plan.n_shards))
    plain, other = Filling.put, Leases(out)
    lost: list[int] = []

    def slow(filling: Filling, *rest) -> None:
        plain(filling, *rest)
        if filling.whole is last and not lost:
            (out / "leases" / "table.json").unlink(missing_ok=True)
            lost.append(other.take([filling.shard]) or 0)
            threading.Timer(0.3, other.release, [filling.shard]).start()

    monkeypatch.setattr(Filling, "put", slow)
    monkeypatch.setattr(writer, "Lanes", functools.partial(Lanes, most=lanes))
    hasty = Leases(out, seconds=1e-9)  # each look at a lease renews it, and finds it lost
    filled = Writer(out, plan, tokens, net, leases=hasty).fill(range(plan.n_shards))
    assert lost
    assert filled.tokens == plan.tokens
    assert activations(out) == activations(whole)


def test_a_lease_is_kept_while_a_pass_is_waited_for(
    begun, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, plan, tokens, net = begun
    plain = Filling.run
    renewed: list[int] = []

    def slow(filling: Filling, *rest):
        time.sleep(0.1)
        return plain(filling, *rest)

    class Counted(Leases):
        def keep(self, shard: int) -> None:
            renewed.append(shard)
            super().keep(shard)

    monkeypatch.setattr(Filling, "run", slow)
    monkeypatch.setattr(lanes, "PATIENCE", 0.01)
    monkeypatch.setattr(writer, "Lanes", functools.partial(Lanes, most=2))
    Writer(out, plan, tokens, net, leases=Counted(out)).fill(range(plan.n_shards))
    parts = sum(len(list(plan.batches(shard))) for shard in range(plan.n_shards))
    assert len(renewed) > 3 * parts
    assert activations(out) == activations(whole)


def test_a_writer_waits_for_what_others_are_at(begun) -> None:
    out, plan, tokens, net = begun
    other = Leases(out)
    shard = other.take([2])
    threading.Timer(0.5, other.release, [shard]).start()
    filled = Writer(out, plan, tokens, net).fill(range(plan.n_shards))
    assert filled.tokens == plan.tokens
    assert commit_path(out, 2).exists()


def test_a_writer_ends_where_it_is_not_wanted(begun) -> None:
    out, plan, tokens, net = begun
    answers = iter([True, True, False])
    Writer(out, plan, tokens, net).fill(range(plan.n_shards), wanted=lambda: next(answers))
    assert len(commit_records(out)) == 2


def test_a_killed_helper_costs_its_shard_alone(
    rows: Path, model: ModelFiles, whole: Path, tmp_path: Path
) -> None:
    runtime = stores.RUNTIME.model_copy(update={"workers": 2})
    killed = []

    def kill(done: int, total: int, note: str = "") -> None:
        for child in multiprocessing.active_children():
            if not killed and child.pid:
                os.kill(child.pid, 9)
                killed.append(child.pid)

    dump(rows, tmp_path, config=stores.CAPTURE, model=model, runtime=runtime, progress=kill)
    assert killed
    assert stores.contents(tmp_path) == stores.contents(whole)


def test_two_dumps_into_one_folder_share_the_work(
    rows: Path, model: ModelFiles, whole: Path, tmp_path: Path
) -> None:
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=stores.fill, args=(rows, tmp_path, model)) for _ in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0, 0, 0]
    assert stores.contents(tmp_path) == stores.contents(whole)
    store = ActivationStore(tmp_path)
    assert all(np.isfinite(store.read(example, 2)).all() for example in store.index)


def test_writers_that_are_killed_leave_the_bytes_of_an_undisturbed_run(
    rows: Path, model: ModelFiles, whole: Path, tmp_path: Path
) -> None:
    draw = random.Random(0)
    kills = sum(kill_until_done(draw, rows, tmp_path / str(i), model, whole) for i in range(3))
    assert kills >= 3
