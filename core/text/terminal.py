"""Make text from elsewhere safe for a terminal: control and bidirectional characters are drawn.

Labels, answers, names of files and messages of servers reach the terminal. Control bytes in them
(C0, and C1, which many terminals obey) could recolour or rewrite what stands there, and
bidirectional marks could show a text in another order than it has.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

_CONTROL_PICTURES = 0x2400
"""First of Unicode's pictures of the C0 control characters."""

_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 but for tab and newline, delete, C1
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # bidirectional marks, embeddings, isolates
    "\u2028\u2029"  # separators, which some terminals take for a newline
    "\ud800-\udfff]"  # lone surrogates, which no encoding can write
)


def terminal_text(text: str) -> str:
    r"""Replace what a terminal would obey in `text` by a visible character.

    Tabs and newlines stay, and so do joiners, which scripts and emoji need.

    >>> terminal_text("red\x1b[31m \x9b2J")
    'red␛[31m �2J'
    """
    return _UNSAFE.sub(_picture, text)


def terminal_json(value: Any) -> str:
    r"""Write `value` as JSON that holds no character that a terminal would obey.

    >>> terminal_json({"label": "a\x9bb"})
    '{\n  "label": "a\\u009bb"\n}'
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def plain_console(**options: Any) -> Console:
    """Make a rich console that takes text as it is: brackets are no markup, `:name:` no emoji.

    Args:
        options: what `rich.console.Console` takes.
    """
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False, **options)


def _picture(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x20:
        return chr(_CONTROL_PICTURES + code)
    return "\u2421" if code == 0x7F else "\ufffd"
