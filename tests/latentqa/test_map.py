"""Where can it be read: the map, in the terminal and as files."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import chain
import numpy as np
import pytest
from ask_calls import PROMPT, QUESTION, Called
from rich.console import Console

from core.errors import ConfigError, ModelError
from decoder.reading import Reading
from decoder.scoring import compute_turn_losses
from decoder.sources.target_run import capture
from decoder.visible_tokens import ReadLayers
from pipelines.asking.map_view import print_map
from pipelines.asking.reader import Reader, make_prompt
from pipelines.asking.reading_map import reading_map

WORDS = ("toy", "--prompt", PROMPT, "--question", QUESTION, "--device", "cpu")


def test_a_cell_is_the_answers_likelihood_above_none(reader: Reader) -> None:
    prompt = make_prompt(PROMPT, [QUESTION])
    found = reading_map(reader, prompt, answer="red", layers=[0, 2], window=5)
    decoder = reader.decoder
    (run,) = capture(decoder, [prompt.messages], [0, 2])
    turn = decoder.prompt.turn(QUESTION, "red")
    part = np.arange(5, 10)
    given = run.reading(ReadLayers((0,)), part)
    ((loss,),) = compute_turn_losses(decoder, [given], [[turn]])
    ((none,),) = compute_turn_losses(decoder, [Reading(None, 5, 5)], [[turn]])
    assert found.gains[0, 1] == pytest.approx(none - loss, abs=1e-4)
    assert found.none[1] == pytest.approx(-none, abs=1e-4)
    assert found.gains.shape == (2, len(found.windows))
    assert found.windows[1].stop == 10
    text = "".join(window.text for window in found.windows)
    assert text == run.encoded.text
    whole = run.reading(ReadLayers((2,)), np.arange(len(run.tokens.ids)))
    ((loss,),) = compute_turn_losses(decoder, [whole], [[turn]])
    ((none,),) = compute_turn_losses(decoder, [Reading(None, whole.n, 0)], [[turn]])
    assert found.whole[1] == pytest.approx(none - loss, abs=1e-4)


def test_without_an_answer_the_decoders_own_is_mapped(reader: Reader) -> None:
    prompt = make_prompt(PROMPT, [QUESTION], tokens="segment:control")
    found = reading_map(reader, prompt, max_tokens=4)
    assert found.written
    assert found.answer == reader.ask(PROMPT, QUESTION, tokens="segment:control", max_tokens=4)
    assert (found.trained, found.layers) == ((2,), (0, 1, 2, 3))
    assert "".join(window.text for window in found.windows) == PROMPT


def test_a_map_asks_one_question_of_blocks_that_are_there(reader: Reader) -> None:
    with pytest.raises(ConfigError, match="got 2 questions, expected one"):
        reading_map(reader, make_prompt(PROMPT, ["a", "b"]), answer="x")
    with pytest.raises(ConfigError, match="window of 0 tokens"):
        reading_map(reader, make_prompt(PROMPT, ["a"]), answer="x", window=0)
    with pytest.raises(ModelError, match=r"blocks 0 to 3, got 7\. Change --layers"):
        reading_map(reader, make_prompt(PROMPT, ["a"]), answer="x", layers=[7])


def test_the_command_prints_the_map_and_writes_its_files(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ("--answer", "red", "--layers", "0,-1", "--out", str(tmp_path / "new" / "map"))
    called = Called(capsys, root, *WORDS, *more, command="map")
    assert called.code == 0, called.err
    lines = called.out.splitlines()
    assert "A: red   (the answer given)" in lines
    rows = dict.fromkeys(line[:10] for line in lines if " block " in line[:10])
    assert list(rows) == [" block   3", " block   0"]
    folder = tmp_path / "new" / "map"
    assert sorted(p.name for p in folder.iterdir()) == ["map.csv", "map.png", "map.svg"]
    cells = list(csv.DictReader(io.StringIO((folder / "map.csv").read_text())))
    assert {cell["layer"] for cell in cells} == {"0", "3"}
    again = Called(capsys, root, *WORDS, *more, "--json", command="map")
    document = json.loads(again.out)
    assert len(document["cells"]) == len(cells)
    assert document["cells"][0]["gain"] == float(cells[0]["gain"])
    assert document["trained_layers"] == [chain.LAYER]


def test_a_narrow_terminal_gets_the_windows_in_parts(reader: Reader) -> None:
    found = reading_map(reader, make_prompt(PROMPT, [QUESTION]), answer="red", layers=[1, 2])
    out = io.StringIO()
    print_map(found, Console(file=out, width=50, color_system="truecolor", force_terminal=True))
    text = out.getvalue()
    assert text.count("*block") == -(-len(found.windows) // 5)
    assert "\x1b[" in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--samples", "2"), "No such option: --samples"),
        (("--layers", "a"), "expected blocks such as 0,7,14"),
        (("--answer", ""), "the answer is empty"),
        (("--messages", "[]"), "expected one of --prompt, --messages, got --prompt and --messages"),
    ],
)
def test_bad_options_are_one_line(
    root: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    assert said in Called(capsys, root, *WORDS, *words, command="map").refused()
