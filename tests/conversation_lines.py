"""Lines of a file of conversations, and the tables of their import."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from core.records.table_files import read_conversations, read_dropped, read_questions
from core.records.tables import Conversation, Dropped, Question
from generators.exchange.config import ImportConfig, RowsConfig
from generators.exchange.conversation_files import import_own_conversations, import_own_questions

MESSAGES = [
    {"role": "user", "content": "Be a ferryman.", "segment": "control"},
    {"role": "assistant", "content": "Aye.", "segment": "control"},
    {"role": "user", "content": "Will it rain?", "segment": "stimulus"},
]
QUESTIONS = [{"question": "Who is it?", "answer": "A ferryman."}]


def line(messages: Any = MESSAGES, questions: Any = QUESTIONS, **more: Any) -> dict[str, Any]:
    return {"messages": messages, "questions": questions, **more}


def write(path: Path, *lines: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "\n".join(one if isinstance(one, str) else json.dumps(one) for one in lines)
    path.write_text(text + "\n")
    return path


class Imported:
    """The tables of an import of own conversations."""

    def __init__(self, path: Path, **rows: Any) -> None:
        config, out = ImportConfig(rows=RowsConfig(**rows)), path.parent / "out"
        import_own_conversations(path, out / "c", config=config)
        import_own_questions(path, out / "c", out / "q", rows=config.rows)
        self.rows: list[Conversation] = read_conversations(out / "c" / "conversations.parquet")
        self.questions: list[Question] = read_questions(out / "q" / "questions.parquet")
        self.dropped: list[Dropped] = [
            one for part in "cq" for one in read_dropped(out / part / "dropped.parquet")
        ]

    @property
    def reasons(self) -> list[str]:
        return [one.reason for one in self.dropped]
