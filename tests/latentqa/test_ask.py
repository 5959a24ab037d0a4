"""Asking a decoder: the command, the Python API, the example."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import chain
import pytest
from ask_calls import PROMPT, QUESTION, WORDS, Called

import latentqa
from core.errors import ConfigError, DamagedError, ModelError
from pipelines.artifacts.refs import Refs
from pipelines.artifacts.root import ArtifactRoot
from pipelines.asking.conversations import conversation_from_texts
from pipelines.asking.load import load
from pipelines.asking.reader import Reader

CHECKOUT = Path(__file__).parents[2]


def test_the_command_prints_question_and_answer(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    called = Called(capsys, root, "toy", *WORDS, "--question", "Loves it?")
    assert (called.err, called.code) == ("", 0)
    head, *rest = called.out.splitlines()
    assert head.startswith("train/")
    assert head.endswith(f"activations of block {chain.LAYER}")
    assert [line for line in rest if line.startswith("Q: ")] == ["Q: Which?", "Q: Loves it?"]
    assert sum(line.startswith("A: ") for line in rest) == 2


def test_json_is_one_document(
    root: Path, reader: Reader, capsys: pytest.CaptureFixture[str]
) -> None:
    found = json.loads(Called(capsys, root, "toy", *WORDS, "--json").out)
    expected = reader.ask_all(PROMPT, [QUESTION], max_tokens=6)
    (answer,) = expected.answers
    assert expected.ood is not None
    (written,) = found.pop("answers")
    assert found == {
        "decoder": reader.name,
        "model": Path(chain.model().ref).name,
        "trained_layers": [chain.LAYER],
        "layers": [chain.LAYER],
        "view": "control",
        "messages": [{"role": "user", "content": PROMPT, "segment": "control"}],
        "tokens": {"choice": "visible", "of": expected.length, "withheld_in_training": 0},
        "activations": expected.activations,
        "ood": expected.ood.to_json(),
        "foreign_target": None,
    }
    tokens = written.pop("tokens")
    assert written == {
        "question": QUESTION,
        "answer": answer.text,
        "log_probability": pytest.approx(answer.log_probability),
        "finished": answer.finished,
        "samples": [],
        "agreement": None,
    }
    assert [token["text"] for token in tokens] == list(answer.tokens)


@pytest.mark.parametrize(
    ("words", "view"), [(("--system", "Be red."), "system"), (("--stimulus", "Hi."), "stimulus")]
)
def test_a_control_can_be_a_system_prompt_or_come_before_a_stimulus(
    root: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, str], view: str
) -> None:
    found = json.loads(Called(capsys, root, "toy", *WORDS, *words, "--json").out)
    assert found["view"] == view
    control = [m["content"] for m in found["messages"] if m["segment"] == "control"]
    assert control[0] == ("Be red." if view == "system" else PROMPT)


def test_a_masked_control_is_not_given_to_the_decoder(reader: Reader) -> None:
    short = reader.ask_all("Hi", [QUESTION], system="Be red.", max_tokens=1)
    long = reader.ask_all("Hi", [QUESTION], system="Be red. " * 9, max_tokens=1)
    assert short.activations == long.activations
    visible = reader.ask_all("Hi" * 30, [QUESTION], max_tokens=1)
    assert visible.activations > short.activations


def test_ask_is_the_text_of_the_first_answer(reader: Reader) -> None:
    asked = reader.ask_all(PROMPT, [QUESTION, "Loves it?"], max_tokens=6)
    assert reader.ask(PROMPT, QUESTION, max_tokens=6) == asked.answers[0].text
    assert reader.ask(PROMPT, "Loves it?", max_tokens=6) == asked.answers[1].text


def test_the_answer_depends_on_the_prompt(reader: Reader) -> None:
    chances = {
        reader.ask_all(prompt, [QUESTION], max_tokens=3).answers[0].log_probability
        for prompt in ("You love red", "You love teal", "Who?")
    }
    assert len(chances) == 3


def test_views_of_the_texts() -> None:
    assert conversation_from_texts("p")[0] == "control"
    view, messages = conversation_from_texts("p", stimulus="s")
    assert view == "stimulus"
    assert [(m.role, m.segment) for m in messages] == [
        ("user", "control"),
        ("assistant", "control"),
        ("user", "stimulus"),
    ]
    with pytest.raises(ConfigError, match="expected one of them"):
        conversation_from_texts("p", system="a", stimulus="b")


@pytest.mark.parametrize("ref", ["by path", "by data", "by copy", "by key"])
def test_a_decoder_is_found_by_every_kind_of_ref(root: Path, tmp_path: Path, ref: str) -> None:
    artifact = Refs(ArtifactRoot(root)).resolve("toy", "train")
    shutil.copytree(artifact.data, tmp_path / "copy")
    words = {
        "by path": str(artifact.path),
        "by data": str(artifact.data),
        "by copy": str(tmp_path / "copy"),
        "by key": f"train/{artifact.key[:6]}",
    }
    found = load(words[ref], root=root, model=chain.model().ref, device="cpu")
    assert found.name == (words[ref] if ref == "by copy" else artifact.short)


def test_the_root_is_taken_from_the_environment(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATENTQA_ROOT", str(root))
    assert latentqa.load("toy", device="cpu").name.startswith("train/")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--prompt", " ", "--question", "q"), "the prompt is empty"),
        (("--prompt", "p", "--question", ""), "a question is empty"),
        (("--prompt", "p", "--question", "q", "--system", ""), "the system is empty"),
        (("--prompt", "<|im_end|>", "--question", "q"), "holds the control token"),
        (("--prompt", "p", "--question", "<|im_end|>"), "control token"),
        (("--prompt", "p", "--question", "q", "--device", "tpu9"), "runtime.device"),
        (
            ("--prompt", "p", "--question", "q", "--model", "/nowhere"),
            "model /nowhere: nothing is there",
        ),
        (("--prompt", "p"), "expected --question TEXT at least once"),
        (("--question", "q"), "expected one of --prompt, --messages, --file, got none"),
        (("--prompt", "p", "--messages", "[]", "--question", "q"), "got --prompt and --messages"),
        (("--messages", "[]", "--question", "q"), "got an empty list, expected a list of"),
        (("--messages", "[{]", "--question", "q"), "--messages: not valid JSON"),
        (("--messages", "[" * 9999, "--question", "q"), "--messages: not valid JSON (nested"),
        (("--messages", "nowhere.json", "--question", "q"), "nowhere.json: cannot be read"),
        (("--prompt", "p", "--question", "q", "--tokens", "most"), "got 'most', expected visible"),
        (("--prompt", "p", "--question", "q", "--tokens", "match:xyz"), "names none of the"),
        (("--prompt", "p", "--question", "q", "--layer", "9"), "blocks 0 to 3, got 9"),
    ],
)
def test_bad_input_is_one_line(
    root: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    assert said in Called(capsys, root, "toy", *words).refused()


def test_another_model_is_one_line(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = chain.model(1).ref
    line = Called(capsys, root, "toy", *WORDS, "--model", other).refused()
    assert "whose weights is" in line
    assert "Give the decoder's own target" in line


@pytest.mark.parametrize("ref", ["nothing", "dump", "/etc"])
def test_a_ref_that_is_no_decoder_is_one_line(
    root: Path, capsys: pytest.CaptureFixture[str], ref: str
) -> None:
    if ref == "dump":
        ref = Refs(ArtifactRoot(root)).resolve("toy", "dump").short
    line = Called(capsys, root, ref, *WORDS).refused()
    assert ref in line


def test_a_target_that_has_moved_is_named_with_model(root: Path, tmp_path: Path) -> None:
    # a copied decoder knows its target's name alone
    shutil.copytree(Refs(ArtifactRoot(root)).resolve("toy", "train").data, tmp_path / "copy")
    with pytest.raises(
        ModelError, match=r"no longer where it was.*Give its new place with --model"
    ):
        load(str(tmp_path / "copy"), root=root, device="cpu")
    moved = load(str(tmp_path / "copy"), root=root, model=chain.model().ref, device="cpu")
    assert isinstance(moved.ask(PROMPT, QUESTION, max_tokens=1), str)


def test_damaged_weights_are_noticed(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "root")
    artifact = Refs(ArtifactRoot(tmp_path / "root")).resolve("toy", "train")
    weights = artifact.data / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(
        DamagedError, match=r"adapter_model\.safetensors: its content differs from the record"
    ):
        load("toy", root=tmp_path / "root", device="cpu")


def test_help_loads_no_torch() -> None:
    code = (
        "import sys\nfrom latentqa.cli import main\n"
        "try:\n    main(['ask', '--help'])\nexcept SystemExit:\n    pass\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=CHECKOUT, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "--stimulus" in done.stdout


def test_the_example_runs(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LATENTQA_ROOT", str(root))
    monkeypatch.setattr(sys, "argv", ["ask.py", "toy", PROMPT, QUESTION])
    runpy.run_path(str(CHECKOUT / "examples" / "ask.py"), run_name="__main__")
    assert "view system, " in capsys.readouterr().out


def test_the_readmes_python_runs(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LATENTQA_ROOT", str(root))
    text = (CHECKOUT / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    for block in blocks:
        exec(block, {})
    assert blocks
    assert capsys.readouterr().out.strip()
