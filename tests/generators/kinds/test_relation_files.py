"""Files of relations: which rows are used, and why others are not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.errors import DataError, LatentQAError
from generators.kinds.relation_files import find_relation_files, read_relation
from generators.kinds.sources import local_path

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
    assert japan.texts == (" in Japan", " from Japan")
    assert (japan.stem, japan.fill("it")) == ("The currency of", "The currency of it")
    assert peru.texts == (" and Peru",)


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
        row(source="in Japan then"),
        row(source="x" * 4000 + " Japan"),
        row(subject=None),
        row(object=" "),
        row(question=""),
        row(question="The currency"),
        row(source="in Japanese"),
    ]
    path.write_text(json.dumps(rows))
    found = read_relation(path)
    assert len(found.subjects) == 1
    assert found.dropped == {
        "no subject or object": 2,
        "no question": 1,
        "no place for the subject in the question": 1,
        "source text too long": 1,
        "no source text": 1,
        "line break in source text": 1,
        "service in source text": 1,
        "subject not in source text": 2,
        "object before the subject": 1,
        "source text twice": 2,
    }


def test_all_objects_and_aliases_of_a_subject_are_right(tmp_path: Path) -> None:
    path = tmp_path / "car.json"
    path.write_text(
        json.dumps([row(aliases=["JPY"]), row(object="¥en", source="to Japan"), row(object="Yen")])
    )
    assert read_relation(path).subjects[0].objects == ("Yen", "JPY", "¥en")


@pytest.mark.parametrize(
    ("question", "asked", "stated"),
    [
        ("The currency of x", "The currency of", "The currency of Peru is"),
        ("The currency of {}", "The currency of", "The currency of Peru is"),
        ("The currency of {subject}", "The currency of", "The currency of Peru is"),
        ("The currency of Japan", "The currency of", "The currency of Peru is"),
        ("What is paid in x?", "What is paid in it?", "What is paid in Peru? Answer:"),
        ("x pays with the", "it pays with the", "Peru pays with the"),
        (
            "The money that x has is the",
            "The money that it has is the",
            "The money that Peru has is the",
        ),
    ],
)
def test_a_question_has_a_place_for_its_subject(
    tmp_path: Path, question: str, asked: str, stated: str
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(row(question=question)) + "\n\n")
    (subject,) = read_relation(path).subjects
    assert (subject.stem, subject.state("Peru")) == (asked, stated)


def test_names_of_any_script_are_found(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    rows = [
        row(subject="日本", object="円", source="昨日日本へ行った"),
        row(subject="Côte d’Ivoire", object="franc", source="in Co\u0302te d’Ivoire"),
        row(subject="Ελλάδα", object="ευρώ", source="στην Ελλάδα"),
    ]
    path.write_text(json.dumps(rows), encoding="utf-8")
    found = read_relation(path)
    assert [one.texts[0][-2:] for one in found.subjects] == ["日本", "re", "δα"]
    assert not found.dropped


def test_a_name_beside_another_script_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    own = row(subject="Apple", object="米国", source="昨日Appleは", question="xの国")
    path.write_text(json.dumps([own]), encoding="utf-8")
    (subject,) = read_relation(path).subjects
    assert (subject.texts, subject.fill("Sony")) == (("昨日Apple",), "Sonyの国")


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("Japan and Japan", "Japan"),
        ("japan, then Japan now", "japan, then Japan"),
        ("all of JAPAN", "all of JAPAN"),
        ("Japanese, in Japan", "Japanese, in Japan"),
    ],
)
def test_a_subject_is_found_first_as_it_is_spelled(tmp_path: Path, source: str, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([row(source=source, position_source=-3)]))
    assert read_relation(path).subjects[0].texts == (text,)


def test_an_object_is_spelled_in_one_way(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    rows = [row(object="yen"), row(subject="Peru", object="Yen", source="in Peru")]
    path.write_text(json.dumps(rows))
    assert [one.objects for one in read_relation(path).subjects] == [("yen",), ("yen",)]


def test_a_subject_is_asked_one_question(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    other = row(object="Tokyo", source="to Japan", question="The capital of x")
    path.write_text(json.dumps([row(question=None), row(), other]))
    found = read_relation(path)
    assert found.subjects[0].objects == ("Yen",)
    assert found.dropped == {"no question": 1, "another question about the subject": 1}


def test_what_pandas_writes_for_nothing_is_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    rows = [row(source=float("nan")), row(object=1789.0, aliases=float("nan"))]
    path.write_text(json.dumps(rows))
    found = read_relation(path)
    assert (found.subjects[0].objects, found.dropped) == (("Yen", "1789"), {"no source text": 1})


@pytest.mark.parametrize("cell", ['"Weird Al" Yankovic', '"Weird Al', 'Dwayne "Rock" Johnson'])
def test_quotes_are_part_of_names_where_rows_fit_only_so(tmp_path: Path, cell: str) -> None:
    found = read_relation(
        write(
            tmp_path / "a.tsv",
            f"{cell}\tsinger\twith {cell} now\tThe job of x",
            'Peru "the\tSol\tof Peru "the\tThe currency of x',
            'Chile"\tPeso\tof Chile"\tThe currency of x',
        )
    )
    assert [one.name for one in found.subjects] == [cell, 'Peru "the', 'Chile"']


def test_quotes_hold_a_cell_of_several_lines_together(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    text = f"\ufeff{HEAD}\tgenerated\nJapan\tYen\tin Japan\tof x\t\"['a'\n'\"\"b']\"\n"
    path.write_bytes(text.replace("\n", "\r\n").encode())
    assert read_relation(path).subjects[0].texts == ("in Japan",)


def test_a_separator_of_lines_within_a_text_ends_no_row(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(row(source="a\u2028in Japan"), ensure_ascii=False) + "\n")
    assert read_relation(path).subjects[0].texts == ("a\u2028in Japan",)


def test_heads_are_read_whatever_their_case_and_mark(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        "\ufeffSubject, Object,Source ,QUESTION\nJapan,Yen,in Japan,of x\n\n,,,\n", encoding="utf-8"
    )
    found = read_relation(path)
    assert (found.subjects[0].objects, found.dropped) == (("Yen",), {"no subject or object": 1})


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.tsv", "", "it is empty"),
        ("a.json", "[1]", "expected a JSON list of objects"),
        ("a.json", "{", "cannot be read"),
        ("a.tsv", f'{HEAD}\n"Japan\tYen\n', "cannot be read"),
        ("a.tsv", "Japan\tYen\tin Japan\tof x\nPeru\tSol\tin Peru\tof x\n", "row 1 has no subject"),
        ("a.tsv", f"{HEAD}\nJapan\tYen\tin Japan\tof\n", "expected a subject, its object"),
        ("a.csv", "subject,object\nJapan,Yen\nParis, Texas,US dollar\n", "row 2 has more cells"),
        ("a.csv", "subject,object,subject\nJapan,Yen,x\n", "the head names 'subject' twice"),
    ],
)
def test_what_is_no_file_of_relations_is_refused_in_a_line(
    tmp_path: Path, name: str, text: str, said: str
) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=said) as caught:
        read_relation(tmp_path / name)
    assert "\n" not in str(caught.value)


TABLE = f"{HEAD}\nJapan\tYen\tin Japan\tof x\nPeru\tSol\tin Peru\tof x\n"
COLUMNS = {
    "subject": ["Japan", "Peru"],
    "object": ["Yen", "Sol"],
    "source": ["in Japan", "in Peru"],
    "question": ["of x", "of x"],
}
ROWS = [dict(zip(COLUMNS, own, strict=True)) for own in zip(*COLUMNS.values(), strict=True)]
LINES = "".join(f"{json.dumps(own)}\r\n" for own in ROWS)


@pytest.mark.parametrize(
    ("name", "text", "encoding"),
    [
        ("a.csv", TABLE.replace("\t", ";"), "utf-8"),
        ("a.csv", TABLE, "utf-8"),
        ("a.tsv", TABLE.replace("\t", ","), "utf-8"),
        ("a.tsv", TABLE, "utf-16"),
        ("a.jsonl", LINES, "utf-8-sig"),
        ("a.json", LINES, "utf-8"),
        ("a.json", json.dumps({"version": 1, "data": ROWS, "notes": ["a"]}), "utf-8"),
        ("a.json", json.dumps({**COLUMNS, "version": 1}), "utf-8"),
        ("a.json", json.dumps({k: dict(enumerate(v)) for k, v in COLUMNS.items()}), "utf-8"),
    ],
)
def test_rows_are_found_however_a_file_divides_them(
    tmp_path: Path, name: str, text: str, encoding: str
) -> None:
    (tmp_path / name).write_bytes(text.encode(encoding))
    found = read_relation(tmp_path / name).subjects
    assert [(one.name, one.objects, one.texts) for one in found] == [
        ("Japan", ("Yen",), ("in Japan",)),
        ("Peru", ("Sol",), ("in Peru",)),
    ]


@pytest.mark.parametrize("cell", ["JPY|¥en", "['JPY', '¥en']", '["JPY", "¥en"]'])
def test_aliases_of_a_cell_may_be_a_list(tmp_path: Path, cell: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([row(aliases=cell)]))
    assert read_relation(path).subjects[0].objects == ("Yen", "JPY", "¥en")


def test_a_cell_that_only_looks_like_a_list_is_text(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([row(object="[sic] Yen")]))
    assert read_relation(path).subjects[0].objects == ("[sic] Yen",)


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
    (folder / "README.md").write_text("not read")
    write(folder / "._a.tsv")
    (folder / ".checkpoints").mkdir()
    write(folder / ".checkpoints" / "a-copy.tsv")
    (folder / "more").mkdir()
    write(folder / "more" / "d.TSV")
    assert list(find_relation_files([str(folder), str(other)], "tasks.relations")) == [
        "a",
        "b",
        "d",
        "c",
    ]
    with pytest.raises(DataError, match=r"have one name"):
        find_relation_files([str(folder), str(write(tmp_path / "a.json"))], "tasks.relations")
    with pytest.raises(DataError, match=r"is neither a file of relations"):
        find_relation_files([str(tmp_path / "none.tsv")], "tasks.relations")


YAML = """
question: "The capital of x"
texts: ["back from x", "to {} by train"]
facts:
  Paris: France
  "Kyiv|Kiev": [Ukraine]
"""


def test_subjects_that_share_their_texts_are_listed_in_yaml(tmp_path: Path) -> None:
    (tmp_path / "capital.yaml").write_text(YAML)
    france, ukraine = read_relation(tmp_path / "capital.yaml").subjects
    assert (france.name, france.objects) == ("France", ("Paris",))
    assert france.texts == ("back from France", "to France")
    assert (ukraine.name, ukraine.objects) == ("Ukraine", ("Kyiv", "Kiev"))
    assert ukraine.fill("x") == "The capital of x"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (YAML.replace("facts", "fact"), "fact: unknown field"),
        (YAML.replace('["back from x", "to {} by train"]', "[]"), "texts: Tuple should have"),
        (YAML + "more: 1", "more: unknown field"),
        ("question: [", "not valid YAML for a relation"),
        (YAML.replace("capital of x", "capital"), "no place for the subject in the question"),
    ],
)
def test_a_wrong_yaml_file_is_refused_in_a_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "capital.yaml"
    path.write_text(text)
    with pytest.raises(LatentQAError, match=said) as caught:
        read_relation(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_packaged_relations_can_be_read() -> None:
    files = find_relation_files(["packaged"], "tasks.relations")
    assert find_relation_files(["packaged/country_capital.yaml"], "tasks.relations") == {
        "country_capital": local_path("packaged/country_capital.yaml")
    }
    relations = [read_relation(path) for path in files.values()]
    assert len(relations) == 6
    for relation in relations:
        assert len(relation.subjects) > 70
        assert not relation.dropped
        assert all(len(subject.texts) == 4 for subject in relation.subjects)


def test_an_object_within_its_subjects_name_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "company.json"
    rows = [
        row(subject="Toyota Corolla", object="Toyota", source="in a Toyota Corolla"),
        row(subject="Civic", object="Honda", source="in a Civic"),
        row(subject="トヨタ・カローラ", object="トヨタ", source="今日はトヨタ・カローラ"),
    ]
    path.write_text(json.dumps(rows))
    found = read_relation(path)
    assert [one.name for one in found.subjects] == ["Civic"]
    assert found.dropped == {"object in the subject's name": 2}


@pytest.mark.parametrize(
    "names",
    [("head", "tail", "sentence", "template"), ("subj", "obj", "text", "prompt")],
)
def test_columns_of_other_common_names_are_read(tmp_path: Path, names: tuple[str, ...]) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"{','.join(names)}\nJapan,Yen,in Japan,The currency of [X] is [Y] .\n")
    (subject,) = read_relation(path).subjects
    assert (subject.name, subject.objects) == ("Japan", ("Yen",))
    assert subject.fill("it") == "The currency of it is"


def test_a_row_without_an_object_leaves_the_others(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([row(), {"subject": "Peru", "source": "in Peru", "question": "x"}]))
    found = read_relation(path)
    assert len(found.subjects) == 1
    assert found.dropped == {"no subject or object": 1}
