"""The quickstart's own plan, on the scripted endpoint: enough controls, enough held out."""

from collections import Counter
from pathlib import Path

import pytest
import yaml
from endpoints import conversations, questions, resolved
from scripted_endpoint import ScriptedEndpoint

from core.records.table_files import read_conversations, read_questions
from generators.making.config import GenerateSection

SECTION = GenerateSection.model_validate(
    yaml.safe_load((Path(__file__).parents[3] / "experiments/quickstart.yaml").read_text())[
        "generate"
    ]
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quickstart")
    with ScriptedEndpoint() as endpoint:
        conversations(folder, resolved(endpoint), SECTION.conversations)
        questions(folder, resolved(endpoint), SECTION.questions)
    return folder


def test_it_has_enough_controls_of_each_kind_and_split(made: Path) -> None:
    controls = {row.control_id: row for row in read_conversations(made / "c/conversations.parquet")}
    kinds = Counter(row.kind for row in controls.values())
    splits = Counter(row.split for row in controls.values())
    assert len(controls) >= 60
    assert set(kinds) == {"persona", "goal", "extractive"}
    assert min(kinds.values()) >= 12
    assert splits["test"] >= 12
    held_out = {row.kind for row in controls.values() if row.split == "test_ood"}
    assert held_out == set(kinds)


def test_every_control_has_at_least_four_questions(made: Path) -> None:
    counted = Counter(
        question.example_id for question in read_questions(made / "q/questions.parquet")
    )
    rows = read_conversations(made / "c/conversations.parquet")
    assert min(counted[row.example_id] for row in rows) >= 4
