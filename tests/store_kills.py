"""SIGKILL to writers of one store at random moments, with a reader looking on."""

from __future__ import annotations

import multiprocessing
import random
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import stores
import torch

from activation_store.layout.arrays import PLAN_FILE
from activation_store.model_files.files import ModelFiles
from activation_store.read.reader import ActivationStore
from activation_store.target.load import load_model
from activation_store.write.capture_shards import capture_shards
from activation_store.write.prepared import prepare_dump

context = multiprocessing.get_context("fork")  # torch and transformers are loaded already


def seconds_of_a_writer(rows: Path, out: Path, model: ModelFiles) -> float:
    """Seconds that one undisturbed writer needs for all, here and now."""
    writer = context.Process(target=stores.fill, args=(rows, out, model))
    start = time.perf_counter()
    writer.start()
    writer.join(120)
    assert writer.exitcode == 0
    return time.perf_counter() - start


def round_of_kills(
    draw: random.Random, rows: Path, out: Path, model: ModelFiles, longest: float
) -> int:
    """Start a dump, then one to four writers beside it that share its shards or write the same
    ones, and kill some of them, or all, within `longest` seconds; how many died of it.
    """
    writers: list[BaseProcess] = [
        context.Process(target=stores.fill, args=(rows, out, model), daemon=True)
    ]
    if (out / PLAN_FILE).is_file():
        n = draw.randint(1, 4)
        shares = [draw.randint(1, n) for _ in range(n)]  # 1: every shard, else a part of them
        writers += [
            context.Process(target=_write, args=(rows, out, model, i, shares[i]), daemon=True)
            for i in range(n)
        ]
        del writers[0]  # a dump removes what it does not know: it runs alone
    for writer in writers:
        writer.start()
    doomed = draw.sample(writers, draw.randint(1, len(writers)))
    for writer in doomed:
        time.sleep(draw.uniform(0, longest / len(doomed)))
        writer.kill()  # silent where it has ended already
    for writer in writers:
        writer.join(120)
    codes = [writer.exitcode for writer in writers]
    assert set(codes) <= {0, -signal.SIGKILL}, codes
    return codes.count(-signal.SIGKILL)


def _write(rows: Path, out: Path, model: ModelFiles, first: int, step: int) -> None:
    """Write every `step`-th shard from `first` on."""
    torch.set_num_threads(1)
    prepared = prepare_dump(rows, stores.CAPTURE, model)
    plan = prepared.make_plan()
    net = load_model(model, dtype="float32", device=torch.device("cpu"))
    shards = range(first % plan.n_shards, plan.n_shards, step)
    capture_shards(plan, shards, out=out, tokens=prepared.tokens, net=net)


def look(out: Path, whole: ActivationStore, draw: random.Random) -> int:
    """Open a store that may be half done and compare some of its rows; how many are readable."""
    if not (out / PLAN_FILE).is_file():
        return 0
    store = ActivationStore(out)
    readable = [e for e, placed in store.index.items() if placed.shard in store.commits]
    for example in draw.sample(readable, min(5, len(readable))):
        assert np.array_equal(store.bits(example, 2), whole.bits(example, 2))
        assert np.array_equal(store.tokens(example), whole.tokens(example))
    return len(readable)


def kill_until_done(
    draw: random.Random, rows: Path, out: Path, model: ModelFiles, whole: Path, longest: float
) -> int:
    """Run rounds of kills, each looked at by a reader, and an undisturbed run at the end: the bytes
    are those of `whole`. How many writers were killed, a round's within `longest` seconds.
    """
    complete = ActivationStore(whole)
    kills, seen = 0, 0
    for _ in range(draw.randint(1, 4)):
        kills += round_of_kills(draw, rows, out, model, longest)
        readable = look(out, complete, draw)
        assert readable >= seen, "committed rows went away"
        seen = readable
    stores.fill(rows, out, model)
    assert stores.contents(out) == stores.contents(whole)
    return kills
