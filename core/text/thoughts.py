"""Reasoning blocks in models' replies, recognised by the marks of many model families.

| family | begins with | ends with |
|---|---|---|
| DeepSeek, Qwen and most others | `<think>` | `</think>` |
| Seed, EXAONE, others | `<seed:think>`, `<thought>`, `<reasoning>` | the same with `/` |
| Magistral | `[THINK]` | `[/THINK]` |
| Kimi | `◁think▷` | `◁/think▷` |
| Command A, OpenThinker | `<|START_THINKING|>`, `<|begin_of_thought|>` | `<|END_…` |
| gpt-oss, Gemma 4 | `<|channel|>analysis`, `<|channel>thought` | the next message or channel |
"""

from __future__ import annotations

import re

_NAME = r"(?:\w+:)?(?:think(?:ing)?|thought|reasoning)\|?[>\]▷]"
_BEGIN = re.compile(
    rf"[<\[◁]\|?(?:begin_of_|start_)?{_NAME}|<\|channel\|?>(?:analysis|thought)", re.IGNORECASE
)
_END = re.compile(
    rf"[<\[◁](?:/|\|end_(?:of_)?){_NAME}|<channel\|>|<\|channel\|>final(?:<\|message\|>)?",
    re.IGNORECASE,
)


def ends_within_thought(text: str) -> bool:
    """Return whether a reasoning block has begun in `text` and not ended.

    >>> ends_within_thought("[THINK]Well"), ends_within_thought("<think>Well</think>Aye")
    (True, False)
    """
    begins, ends = ([m.start() for m in one.finditer(text)] for one in (_BEGIN, _END))
    return bool(begins) and begins[-1] > max(ends, default=-1)


def is_thought_alone(text: str) -> bool:
    r"""Return whether `text` is a reasoning block, ended or not, and no more.

    >>> is_thought_alone("<think>Well"), is_thought_alone("The mark <think> begins it.")
    (True, False)
    >>> is_thought_alone("<think>Well</think>\n"), is_thought_alone("<think>Well</think>Aye")
    (True, False)
    """
    if _BEGIN.match(text.lstrip()) is None:
        return False
    return ends_within_thought(text) or not (after_thought(text) or "").strip()


def after_thought(text: str) -> str | None:
    """Return what follows the last reasoning block in `text`; None where none ends in it.

    >>> after_thought("Well.</seed:think> Aye")
    ' Aye'
    >>> after_thought("<|channel>thought Well.<channel|>Aye")
    'Aye'
    """
    ends = list(_END.finditer(text))
    return text[ends[-1].end() :] if ends else None


def find_thought(text: str) -> tuple[int | None, str]:
    """Return where the first reasoning block of `text` begins, and what follows the last.

    >>> find_thought(" <think>Well</think>Aye"), find_thought("Aye"), find_thought("</think>Aye")
    ((1, 'Aye'), (None, 'Aye'), (None, 'Aye'))
    """
    begin, answer = _BEGIN.search(text), after_thought(text)
    return (begin.start() if begin else None), (text if answer is None else answer)
