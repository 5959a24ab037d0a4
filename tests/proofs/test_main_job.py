"""The main job at full size: the published rows on the embedded model, and many kills."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import tiny
from published_chain import Chain, cached

REPOSITORY = Path(__file__).parents[2]
PUBLISHED = Path(
    os.environ.get("LATENTQA_PUBLISHED", REPOSITORY.parent / "shared/data/latentqa_eval")
)
KILLS = 40


def run(config: Path, root: Path, *words: str) -> tuple[dict[str, Any], float]:
    """`latentqa run --json`: its document and its wall time in seconds."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "latentqa.cli", "run", config, "--root", root, "--json", *words],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), time.perf_counter() - start


@pytest.mark.prove
@pytest.mark.published
@pytest.mark.embedded
def test_published_rows(proved: dict[str, Any], tmp_path: Path) -> None:
    """The published rows give gains in view control on the embedded model within 20 minutes"""
    if not PUBLISHED.is_dir():
        pytest.skip(f"the published files are not at {PUBLISHED}")
    config = REPOSITORY / "experiments/latentqa_eval.yaml"
    document, seconds = run(config, tmp_path, "--set", f"data.path={PUBLISHED}")
    proved["minutes"] = round(seconds / 60, 1)
    for view, found in document["metrics"]["reading"]["test"].items():
        for name in ("below_untrained", "grounded_gain", "information_gain"):
            leaf = found[name]
            proved[f"test, {view}: {name} (nats a token)"] = (
                f"{leaf['estimate']:.3f} [{leaf['low']:.3f}, {leaf['high']:.3f}], n {leaf['n']}"
            )
    # the same decoder: of the steps, evaluate alone is new
    chosen = {"views": "[control]", "answers": 0, "identification": 4, "max_controls": 40}
    words = [word for k, v in chosen.items() for word in ("--set", f"evaluate.{k}={v}")]
    other, _ = run(config, tmp_path, "--set", f"data.path={PUBLISHED}", *words)
    identified = other["metrics"]["reading"]["test"]["control"]["identification"]
    named = {"chance": identified["chance"], **identified["accuracy"]}
    for name, leaf in named.items():
        proved[f"test, control: identification among 4, {name}"] = (
            f"{leaf['estimate']:.3f} [{leaf['low']:.3f}, {leaf['high']:.3f}], n {leaf['n']}"
        )
    chance, withheld = identified["chance"], identified["accuracy"]["none"]
    reruns = []
    for _ in range(3):
        again, rerun = run(config, tmp_path, "--set", f"data.path={PUBLISHED}")
        assert all(cached(again).values())
        start = time.perf_counter()
        listing = [sys.executable, "-m", "latentqa.cli", "ls", "--root", str(tmp_path)]
        subprocess.run(listing, check=True, capture_output=True)
        reruns.append(rerun - (time.perf_counter() - start))
    proved["rerun minus `latentqa ls`, median of 3 (s)"] = round(statistics.median(reruns), 2)
    control = document["metrics"]["reading"]["test"]["control"]
    assert seconds < 20 * 60
    assert control["below_untrained"]["estimate"] >= 0.4
    assert control["grounded_gain"]["estimate"] >= 0.6
    assert control["information_gain"]["low"] > 0
    assert statistics.median(reruns) < 3
    # activations withheld: at the stated chance
    assert chance["low"] <= withheld["estimate"] <= chance["high"]
    assert identified["information_gain"]["low"] > 0


@pytest.mark.prove
def test_many_kills(proved: dict[str, Any], tmp_path: Path) -> None:
    """Runs killed at random moments of every step resume to the result of an undisturbed run"""
    model = tiny.save(tmp_path / "model")
    undisturbed = Chain(tmp_path / "undisturbed", model)
    start = time.perf_counter()
    process = undisturbed.start()
    process.communicate()
    whole = time.perf_counter() - start
    draw = random.Random(0)
    chain = Chain(tmp_path / "killed", model, config=undisturbed.config)
    kills, runs = 0, 0
    steps: dict[int, int] = {}
    while kills < KILLS:
        process = chain.start()
        time.sleep(draw.uniform(0.5, whole))
        steps_done = len(chain.digests())
        alive = process.poll() is None
        os.killpg(process.pid, signal.SIGKILL) if alive else None
        process.communicate()
        kills += alive
        if alive:
            steps[steps_done] = steps.get(steps_done, 0) + 1
        if len(chain.digests()) >= len(undisturbed.digests()):  # done: from the start again
            assert chain.digests() == undisturbed.digests()
            shutil.rmtree(chain.root)
            runs += 1
    chain.run()
    assert chain.digests() == undisturbed.digests()
    proved["kills"] = kills
    proved["finished runs, all with the digests of the undisturbed run"] = runs + 1
    proved["kills by number of artifacts finished before"] = str(dict(sorted(steps.items())))
    proved["seed"] = 0
