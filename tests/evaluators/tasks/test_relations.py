"""Files of relations: which rows are used, and why others are not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.errors import DataError
from evaluators.tasks.relations import find_relation_files, read_relation

HEAD = "subject\tobject\tprompt_source\tprompt_target"


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join((HEAD, *lines)) + "\n", encoding="utf-8")
    return path


def row(**changes: Any) -> dict[str, Any]:
    own = {"subject": "Japan", "object": "Yen", "source": "in Japan now"}
    return {**own, "question": "The currency of x", **changes}


def test_rows_of_a_subject_are_its_texts(tmp_path: Path) -> None:
    found = read_relation(
        write(
            tmp_path / "money.tsv",
            "Japan\tYen\t in Japan, 2003\tThe currency of x",
            "Japan\tYen\t from Japan to\tThe currency of x",
            "Peru\tSol\t and Peru\tThe currency of x",
        )
    )
    japan, peru = found.subjects
    assert (found.name, japan.name, japan.objects) == ("money", "Japan", ("Yen",))
    assert [one.text[: one.stop] for one in japan.sources] == [" in Japan", " from Japan"]
    assert (japan.stem, japan.fill("it")) == ("The currency of", "The currency of it")
    assert len(peru.sources) == 1


def test_rows_are_dropped_by_a_named_rule(tmp_path: Path) -> None:
    path = tmp_path / "star_constellation.json"
    rows = [
        row(),
        row(source=""),
        row(source="Japan\nnow"),
        row(source="satellite service of Japan"),
        row(source="nowhere"),
        row(source="the Yen of Japan"),
        row(source="in Japan now"),
    ]
    path.write_text(json.dumps(rows))
    found = read_relation(path)
    assert len(found.subjects) == 1
    assert found.dropped == {
        "no source text": 1,
        "line break in source text": 1,
        "service in source text": 1,
        "subject not in source text": 1,
        "object before the subject": 1,
        "source text twice": 1,
    }


def test_all_objects_and_aliases_of_a_subject_are_right(tmp_path: Path) -> None:
    path = tmp_path / "car.json"
    path.write_text(
        json.dumps([row(aliases=["JPY"]), row(object="¥en", source="to Japan"), row(object="Yen")])
    )
    assert read_relation(path).subjects[0].objects == ("Yen", "JPY", "¥en")


def test_a_relation_needs_the_place_of_its_subject(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "Japan\tYen\tin Japan\tThe currency")
    with pytest.raises(DataError, match=r"a\.tsv: 'The currency' has no word x, expected one"):
        read_relation(path)


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"subject": "a", "object": "b", "source": "c"}]))
    with pytest.raises(DataError, match=r"row 1 has no prompt_target or question; it has subject"):
        read_relation(path)


def test_a_file_without_a_usable_row_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([row(source="")]))
    with pytest.raises(DataError, match=r"none of its 1 rows can be used"):
        read_relation(path)


def test_files_are_found_by_name_and_folder(tmp_path: Path) -> None:
    folder = tmp_path / "all"
    folder.mkdir()
    write(folder / "b.tsv")
    write(folder / "a.tsv")
    other = write(tmp_path / "c.json")
    assert list(find_relation_files([str(folder), str(other)])) == ["a", "b", "c"]
    with pytest.raises(DataError, match=r"have one name"):
        find_relation_files([str(folder), str(write(tmp_path / "a.json"))])
    with pytest.raises(DataError, match=r"is no file of relations"):
        find_relation_files([str(tmp_path / "none.tsv")])
