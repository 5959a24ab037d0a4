"""Claims at several grades: ignoring activations is right in half, knowing always."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
import reading_model
import torch
from reading_model import OBJECTS, object_of

from evaluators.tasks.config import Grade, TasksConfig
from evaluators.tasks.graded_task import OPTIONS, Hop, grade_tasks
from evaluators.tasks.measure import measure_task, run_predictor
from evaluators.tasks.predictors.base import Setting
from evaluators.tasks.relation_task import build_relation_task, find_hops
from evaluators.tasks.rows import TaskData, TaskRow
from generators.kinds.relation_files import Relation, read_relation
from generators.rules.naming import fold

CONFIG = TasksConfig.model_validate(
    {
        "min_subjects": 4,
        "shares": {"train": 0.5, "validation": 0.2},
        "bootstrap": 200,
        "grades": ["direct", "negation", "comparison", "counting", "two_hop"],
    }
)
PAIRED: tuple[Grade, ...] = ("direct", "negation", "comparison", "counting")
COLOURS = {"1": "red", "2": "green", "3": "blue", "4": "grey"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TaskData:
    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp("relations") / "number.json"
    relation = read_relation(reading_model.write_relation(path))
    return build_relation_task(reading_model.decoder(), relation, CONFIG, (1, 2))


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Relation:
    rows = [
        {
            "subject": digit,
            "object": colour,
            "source": f"we saw {digit}",
            "question": "the colour of x",
        }
        for digit, colour in COLOURS.items()
    ]
    path = tmp_path_factory.mktemp("relations") / "colour.json"
    path.write_text(json.dumps(rows))
    return read_relation(path)


def graded(data: TaskData, grade: Grade, hops: Sequence[Hop] = ()) -> TaskData:
    (found,) = grade_tasks(data, hops, CONFIG.model_copy(update={"grades": (grade,)}))
    return found


class Blind:
    """Answers by the words of the claim alone."""

    def settings(self) -> list[Setting]:
        return [{}]

    def write(self, rows: Sequence[TaskRow], setting: Setting) -> list[str]:
        return ["Yes"] * len(rows)

    def score(self, rows: Sequence[TaskRow], setting: Setting) -> list[list[float]]:
        return [
            [float(len(row.questions[0]) % 3), float(hash(row.questions[0]) % 3)] for row in rows
        ]


class Knowing(Blind):
    """Answers from the subject, whose object it knows."""

    def score(self, rows: Sequence[TaskRow], setting: Setting) -> list[list[float]]:
        return [[1.0, 0.0] if self._is_true(row) else [0.0, 1.0] for row in rows]

    @staticmethod
    def _is_true(row: TaskRow) -> bool:
        claim = row.questions[0].split(" it is ")[-1].split(".")[0]
        negated = claim.startswith("not ")
        claim = claim.removeprefix("not ")
        own = object_of(row.name)
        if " of these three: " in claim:
            number, names = claim.removeprefix("the same as for exactly ").split(
                " of these three: "
            )
            alike = [object_of(name) for name in names.split(", ")].count(own)
            return alike == {"one": 1, "two": 2}[number]
        named = claim.removeprefix("the same as for ")
        said = object_of(named) if named != claim else claim
        return (said in (own, COLOURS[own])) != negated


@pytest.mark.parametrize("grade", PAIRED)
def test_half_of_the_claims_are_true_and_of_each_subject_one(data: TaskData, grade: Grade) -> None:
    found = graded(data, grade)
    assert found.why_not is None
    golds = Counter(row.answer for row in found.test)
    assert golds["Yes"] == golds["No"] == len(found.test) / 2
    of_subject = Counter((row.group, row.answer) for row in found.test)
    assert set(of_subject.values()) == {1}


@pytest.mark.parametrize("grade", PAIRED)
def test_the_blind_are_right_in_half_and_the_knowing_always(data: TaskData, grade: Grade) -> None:
    found = graded(data, grade)
    answers = {
        "blind": run_predictor(Blind(), "nothing", found),
        "knowing": run_predictor(Knowing(), "text", found),
    }
    measured = measure_task(found, answers, CONFIG)
    assert measured.chance == 0.5
    assert measured.predictors["blind"].chosen.estimate == 0.5
    written = measured.predictors["blind"].contained  # it writes yes throughout
    assert written is not None
    assert written.estimate == 0.5
    assert measured.predictors["knowing"].chosen.estimate == 1.0


def test_claims_say_what_their_grade_says(data: TaskData) -> None:
    row = graded(data, "negation").test[0]
    assert row.questions[0].startswith("the number of it is not ")
    assert row.options == OPTIONS
    row = graded(data, "comparison").test[0]
    assert "the same as for " in row.plain[0].messages[0][1]
    named = row.plain[0].messages[0][1].split("the same as for ")[1][0]
    assert named.casefold() in {row.group for row in data.train}


def test_two_and_one_are_said_of_the_same_three(data: TaskData) -> None:
    first, _, second, _ = graded(data, "counting").test[:4]
    claims = [row.plain[0].messages[0][1].split("exactly ")[1] for row in (first, second)]
    numbers, names = zip(*(claim.split(" of these three: ") for claim in claims), strict=True)
    assert set(numbers) == {"one", "two"}
    assert len(set(names)) == 1


def test_two_hops_put_one_relation_before_another(data: TaskData, colours: Relation) -> None:
    subjects = {tuple(fold(one.name)): one for one in colours.subjects}
    found = graded(data, "two_hop", [Hop(name="colour", subjects=subjects)])
    assert found.name == "number_then_colour"
    row = found.test[0]
    assert row.questions[0].startswith("the colour of the number of it is ")
    assert any(colour in row.questions[0] for colour in COLOURS.values())
    measured = measure_task(found, {"k": run_predictor(Knowing(), "text", found)}, CONFIG)
    assert measured.predictors["k"].chosen.estimate == 1.0


def test_only_objects_that_the_target_knows_lead_on(
    data: TaskData, colours: Relation, tmp_path: Path
) -> None:
    decoder = reading_model.decoder()
    assert find_hops(decoder, data, [colours], CONFIG) == []  # it knows no colour
    known = [
        {"subject": "B", "object": object_of("B"), "source": "saw B", "question": "the x"},
    ]
    (tmp_path / "same.json").write_text(json.dumps(known))
    other = read_relation(tmp_path / "same.json")
    assert find_hops(decoder, data, [other], CONFIG) == []  # no object is its subject


def test_too_few_pairs_are_not_measured(data: TaskData) -> None:
    many = CONFIG.model_copy(update={"grades": ("direct",), "min_subjects": 30})
    (found,) = grade_tasks(data, [], many)
    assert found.why_not is not None
    assert "test subjects, and tasks.min_subjects requires 30" in found.why_not
    assert set(OBJECTS) >= {row.answer for row in data.test}
