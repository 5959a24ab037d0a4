"""The quickstart at a small size, for real: the embedded model writes, is read, and answers."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import Called

from activation_store.model_files import embedded_model as embedded
from core.errors import ModelError

REPOSITORY = Path(__file__).parents[1]


@pytest.mark.embedded
@pytest.mark.timeout(1200)
def test_the_quickstart_runs_at_a_small_size_and_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        embedded.gguf_path()
    except ModelError as error:
        pytest.skip(str(error))
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("LATENTQA_ROOT", str(tmp_path))
    # one thread: other tests run at the same time, and two that wait for each other crawl
    few = (
        "runtime.threads=1",
        # the other kinds are written by the same steps, which scripted endpoints test
        "generate.conversations.kinds={persona: {controls: 4, views: [control, system]}}",
        "generate.conversations.splits={validation: 0.25, test: 0.5, test_ood: []}",
        "generate.questions.per_control=1",
        "complete.max_tokens=8",
        "evaluate.max_answer_tokens=8",
        "evaluate.conditions=[right, other]",
        "evaluate.identification=0",
        "train.max_steps=1",
        "train.validation_rows=1",
    )
    settings = [word for one in few for word in ("--set", one)]
    words = ("run", "experiments/quickstart.yaml", "--smoke", "--json", *settings)
    document = Called(capsys, *words).json()
    assert [step["step"] for step in document["steps"]] == [
        *("conversations", "questions", "complete", "dump", "train", "evaluate")
    ]
    metrics = document["metrics"]
    assert metrics["data"]["controls"] >= 3
    assert metrics["data"]["completions"] >= 1
    assert metrics["store"]["canary"]["max_relative"] <= metrics["store"]["canary"]["tolerance"]
    # the untrained decoder of a real model is far from chance (10.8 nats a token)
    assert metrics["train"]["untrained_validation"] < 6
    again = Called(capsys, *words).json()
    assert all(step["cached"] for step in again["steps"])
    question = ("--prompt", "You are a pirate.", "--question", "Who speaks?", "--max-tokens", "8")
    assert Called(capsys, "ask", "quickstart-smoke", *question, "--json").json()
