"""Lines of a file of conversations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

MESSAGES = [
    {"role": "user", "content": "Be a ferryman.", "segment": "control"},
    {"role": "assistant", "content": "Aye.", "segment": "control"},
    {"role": "user", "content": "Will it rain?", "segment": "stimulus"},
]
QUESTIONS = [{"question": "Who is it?", "answer": "A ferryman."}]


def line(messages: Any = MESSAGES, questions: Any = QUESTIONS, **more: Any) -> dict[str, Any]:
    return {"messages": messages, "questions": questions, **more}


def write(path: Path, *lines: Any) -> Path:
    text = "\n".join(one if isinstance(one, str) else json.dumps(one) for one in lines)
    path.write_text(text + "\n")
    return path
