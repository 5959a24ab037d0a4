"""The choice of the tokens of a conversation that the decoder reads.

| choice | tokens |
|---|---|
| `visible` | what the decoder was trained to see of such a view: all but what masking withholds |
| `all` | every token |
| `segment:NAME` | of `control`, `stimulus`, `completion` or `template`; several joined by `+` |
| `range:START:STOP` | counted from 0 from the conversation's first token, as Python slices are |
| `match:REGEX` | those that overlap a match in the conversation's text, control tokens included |
| `last:N` | the last N |

All but `visible` take what they name, masked or not.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from activation_store.tokens.tokens import SEGMENT_CODES, Encoded, Tokens
from core.errors import ConfigError, DataError

VISIBLE = "visible"
FORMS = "visible, all, segment:NAME, range:START:STOP, match:REGEX or last:N"


def choose_tokens(choice: str, tokens: Tokens, encoded: Encoded, *, withheld: int) -> np.ndarray:
    """Find the tokens that `choice` names; return their indices [n], ascending.

    Args:
        choice: in one of the forms above.
        tokens: of the conversation.
        encoded: where each token stands in the conversation's text.
        withheld: leading tokens that `visible` leaves out.

    Raises:
        ConfigError: `choice` is none of the forms.
        DataError: it names no token of this conversation.
    """
    form, _, rest = choice.partition(":")
    if form in _PLAIN and not rest and choice == form:
        chosen = np.arange(withheld if form == VISIBLE else 0, len(tokens.ids))
    elif form in _FORMS:
        chosen = _FORMS[form](choice, rest, tokens, encoded)
    else:
        raise ConfigError(f"tokens: got {choice!r}, expected {FORMS}.")
    if not len(chosen):
        raise DataError(
            f"tokens: {choice!r} names none of the conversation's {len(tokens.ids)} tokens"
            + (", of which masking withholds all." if withheld >= len(tokens.ids) else ".")
        )
    return chosen


def _segments(choice: str, rest: str, tokens: Tokens, encoded: Encoded) -> np.ndarray:
    names = rest.split("+")
    for name in names:
        if name not in SEGMENT_CODES:
            raise ConfigError(
                f"tokens: {choice!r} has no segment {name!r}; expected {', '.join(SEGMENT_CODES)}."
            )
    return np.flatnonzero(np.isin(tokens.segments, [SEGMENT_CODES[name] for name in names]))


def _range(choice: str, rest: str, tokens: Tokens, encoded: Encoded) -> np.ndarray:
    ends = re.fullmatch(r"(-?\d*):(-?\d*)", rest)
    if ends is None or "-" in ends.groups():
        raise ConfigError(f"tokens: got {choice!r}, expected range:START:STOP in whole numbers.")
    start, stop = (int(end) if end else None for end in ends.groups())
    return np.arange(len(tokens.ids))[start:stop]


def _match(choice: str, rest: str, tokens: Tokens, encoded: Encoded) -> np.ndarray:
    try:
        pattern = re.compile(rest)
    except re.error as error:
        raise ConfigError(
            f"tokens: {choice!r} is not a valid regular expression ({error})."
        ) from error
    chosen = np.zeros(len(tokens.ids), bool)
    for found in pattern.finditer(encoded.text):
        chosen |= (encoded.starts < found.end()) & (encoded.stops > found.start())
    return np.flatnonzero(chosen)


def _last(choice: str, rest: str, tokens: Tokens, encoded: Encoded) -> np.ndarray:
    if not rest.isdecimal() or int(rest) < 1:
        raise ConfigError(f"tokens: got {choice!r}, expected last:N with N at least 1.")
    return np.arange(len(tokens.ids))[-int(rest) :]


_PLAIN = (VISIBLE, "all")
_FORMS: dict[str, Callable[[str, str, Tokens, Encoded], np.ndarray]] = {
    "segment": _segments,
    "range": _range,
    "match": _match,
    "last": _last,
}
