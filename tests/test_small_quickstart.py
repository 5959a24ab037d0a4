"""The quickstart at a small size, for real: the embedded model writes, is read, and answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from activation_store.model_files import embedded_model as embedded
from core.errors import ModelError

REPOSITORY = Path(__file__).parents[1]


def latentqa(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "latentqa.cli", *words, "--root", str(root)],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env={k: v for k, v in os.environ.items() if k != "PREFECT_API_URL"},
        timeout=540,
    )


@pytest.mark.embedded
@pytest.mark.timeout(600)
def test_the_quickstart_runs_at_a_small_size_and_is_asked(tmp_path: Path) -> None:
    try:
        embedded.gguf_path()
    except ModelError as error:
        pytest.skip(str(error))
    # one thread: other tests run at the same time, and two that wait for each other crawl
    few = (
        "runtime.threads=1",
        # the other kinds are written by the same steps, which scripted endpoints test
        "generate.conversations.kinds={persona: {controls: 5, views: [control, system]}}",
        "generate.conversations.splits.test_ood=[]",
        "generate.questions.per_control=2",
    )
    settings = [word for one in few for word in ("--set", one)]
    words = ["experiments/quickstart.yaml", "--smoke", "--json", *settings]
    done = latentqa(tmp_path, "run", *words)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert [step["step"] for step in document["steps"]] == [
        *("conversations", "questions", "complete", "dump", "train", "evaluate")
    ]
    metrics = document["metrics"]
    assert metrics["data"]["controls"] >= 3
    assert metrics["data"]["completions"] >= 1
    assert metrics["store"]["canary"]["max_relative"] <= metrics["store"]["canary"]["tolerance"]
    # the untrained decoder of a real model is far from chance (10.8 nats a token)
    assert metrics["train"]["untrained_validation"] < 6
    again = latentqa(tmp_path, "run", *words)
    assert all(step["cached"] for step in json.loads(again.stdout)["steps"])
    question = ("--prompt", "You are a pirate.", "--question", "Who speaks?", "--max-tokens", "8")
    asked = latentqa(tmp_path, "ask", "quickstart-smoke", *question, "--json")
    assert asked.returncode == 0, asked.stderr
    assert json.loads(asked.stdout)
