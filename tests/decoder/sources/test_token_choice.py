"""Which tokens are read: every form of a choice."""

from __future__ import annotations

import numpy as np
import pytest
import stores
import tiny

from activation_store.tokens.tokens import SEGMENT_CODES, tokenize_with_text
from core.errors import ConfigError, DataError
from decoder.sources.target_run import count_skipped
from decoder.sources.token_choice import choose_tokens

SAID = stores.messages("stimulus_completion", "You are a pirate.", "Who are you?", "A pirate.")
TOKENS, ENCODED = tokenize_with_text(tiny.tokenizer(), SAID)
WHOLE = len(TOKENS.ids)


def text(choice: str, withheld: int = 0) -> str:
    chosen = choose_tokens(choice, TOKENS, ENCODED, withheld=withheld)
    assert (np.diff(chosen) > 0).all()
    return "".join(ENCODED.text[ENCODED.starts[i] : ENCODED.stops[i]] for i in chosen)


def test_visible_leaves_out_what_is_withheld() -> None:
    assert text("visible") == text("all") == ENCODED.text
    assert text("visible", withheld=TOKENS.withheld) in ENCODED.text
    assert "You are a pirate" not in text("visible", withheld=TOKENS.withheld)
    assert text("all", withheld=TOKENS.withheld) == ENCODED.text


def test_segments() -> None:
    assert text("segment:stimulus") == "Who are you?"
    assert text("segment:stimulus+completion") == "Who are you?A pirate."
    assert set(TOKENS.segments[choose_tokens("segment:control", TOKENS, ENCODED, withheld=0)]) == {
        SEGMENT_CODES["control"]
    }


def test_ranges_are_slices() -> None:
    assert choose_tokens("range:3:5", TOKENS, ENCODED, withheld=0).tolist() == [3, 4]
    assert choose_tokens("range:-2:", TOKENS, ENCODED, withheld=0).tolist() == [
        WHOLE - 2,
        WHOLE - 1,
    ]
    assert choose_tokens("last:2", TOKENS, ENCODED, withheld=0).tolist() == [WHOLE - 2, WHOLE - 1]
    assert choose_tokens("range::", TOKENS, ENCODED, withheld=9).tolist() == list(range(WHOLE))


def test_matches_may_lie_apart() -> None:
    assert text("match:pirate") == "pirate" * 2
    chosen = choose_tokens("match:pirate", TOKENS, ENCODED, withheld=0)
    skipped = count_skipped(chosen)
    assert skipped is not None
    assert (chosen[0] + skipped + np.arange(len(chosen))).tolist() == chosen.tolist()
    assert count_skipped(chosen[:3]) is None
    assert "<|im_start|>" in text(r"match:<\|im_start\|>")


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ("most", "expected visible, all, segment:NAME"),
        ("all:", "expected visible, all"),
        ("segment:reply", "no segment 'reply'; expected template, control"),
        ("range:a:b", "expected range:START:STOP"),
        ("range:-:", "expected range:START:STOP"),
        ("last:0", "N at least 1"),
        ("match:(", "not a valid regular expression"),
    ],
)
def test_another_form_is_one_line(choice: str, said: str) -> None:
    with pytest.raises(ConfigError, match="tokens: ") as caught:
        choose_tokens(choice, TOKENS, ENCODED, withheld=0)
    assert said in str(caught.value)


@pytest.mark.parametrize("choice", ["match:parrot", "range:5:5", f"range:{WHOLE}:"])
def test_a_choice_of_nothing_is_one_line(choice: str) -> None:
    with pytest.raises(DataError, match=f"names none of the conversation's {WHOLE} tokens"):
        choose_tokens(choice, TOKENS, ENCODED, withheld=0)
    with pytest.raises(DataError, match="of which masking withholds all"):
        choose_tokens("visible", TOKENS, ENCODED, withheld=WHOLE)
