"""`latentqa data`: what the commands print, write and refuse."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from published_files import published, row, write_folder
from typer.testing import CliRunner, Result

from core.errors import ConfigError, DataError, LatentQAError, StorageError
from core.files import sha256_file, write_json
from core.records.table_files import read_conversations, write_conversations
from core.records.tables import Split
from generators.exchange.importing import source_digests
from latentqa.commands.stored.data import app

CHECKOUT = Path(__file__).parents[2]


def latentqa(*args: str | Path) -> Result:
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    if isinstance(result.exception, LatentQAError):
        raise result.exception
    return result


def document(*args: str | Path) -> Any:
    result = latentqa(*args, "--json")
    assert result.exit_code == 0
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an import outside of any experiment."""
    folder = tmp_path_factory.mktemp("data")
    latentqa("import", published(folder / "in"), "--out", folder / "out")
    return folder / "out"


@pytest.fixture
def artifacts(data: Path, tmp_path: Path) -> Path:
    """Make an artifact root with the import's tables and a decoder made from them, under a name."""
    root = tmp_path / "root"
    keys = {"conversations": "a" * 64, "questions": "b" * 64, "train": "c" * 64}
    inputs = {"conversations": [], "questions": ["conversations"], "train": ["questions"]}
    for kind, key in keys.items():
        folder = root / kind / key[:16]
        files = []
        if kind != "train":
            for path in (data / kind).iterdir():
                (folder / "data").mkdir(parents=True, exist_ok=True)
                (folder / "data" / path.name).write_bytes(path.read_bytes())
                files.append([path.name, path.stat().st_size, sha256_file(path)])
        behind = {role: {"key": keys[role], "digest": "0" * 64} for role in inputs[kind]}
        write_json(folder / "identity.json", {"kind": kind, "inputs": behind})
        record = {
            "kind": kind, "key": key, "output": "0" * 64, "files": files, "inputs": {},
            "counts": {},
        }  # fmt: skip
        write_json(folder / "record.json", record)
    named = [f"{kind}/{key}" for kind, key in keys.items()]
    write_json(root / "refs" / "mine" / "latest.json", {"artifacts": named, "number": 1})
    return root


# ---------------------------------------------------------------------------------- page


def test_a_page_holds_the_rows_that_fit_and_nothing_from_elsewhere(
    data: Path, tmp_path: Path
) -> None:
    page = tmp_path / "rows.html"
    result = latentqa("show", data, "--view", "control", "--out", page)
    assert f"{page}: 24 of 24 rows" in result.stdout
    text = page.read_text()
    assert text.count('<article class="row"') == 24
    assert 'data-filter="split"' in text
    assert 'data-filter="view"' not in text  # there is one view alone
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", text)
    document("show", data, "--limit", "3", "--out", page)
    assert "the first of 72" in page.read_text()


def test_a_page_shows_texts_as_they_are(data: Path, tmp_path: Path) -> None:
    rows = read_conversations(data / "conversations/conversations.parquet")[:1]
    hostile = "</script><img src=x onerror=alert(1)> \"'&"
    message = dataclasses.replace(rows[0].messages[0], content=hostile)
    row_ = dataclasses.replace(rows[0], messages=(message,), category=hostile, flags=(hostile,))
    write_conversations(tmp_path / "conversations.parquet", [row_])
    latentqa("show", tmp_path / "conversations.parquet", "--out", tmp_path / "rows.html")
    text = (tmp_path / "rows.html").read_text()
    assert "<img" not in text
    assert text.count("</script>") == 1
    assert "&lt;/script&gt;&lt;img src=x" in text


# ---------------------------------------------------------------------------------- import


def test_import_writes_both_tables_and_says_what_it_did(tmp_path: Path) -> None:
    published(tmp_path / "in")
    result = latentqa("import", tmp_path / "in", "--out", tmp_path / "out")
    assert "36 controls, 72 conversations, 144 questions of 36 labels" in result.stdout
    assert "dropped 1 × no_conversation, listed in " in result.stdout
    found = sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.*"))
    assert found == [
        "conversations/conversations.parquet",
        "conversations/dropped.parquet",
        "import.json",
        "questions/dropped.parquet",
        "questions/questions.parquet",
    ]


def test_import_prints_one_document(tmp_path: Path) -> None:
    published(tmp_path / "in")
    found = document(
        "import", tmp_path / "in", "--out", tmp_path / "out", "--set", "limit=4",
        "--set", "splits.seed=3", "--set", "data.splits.test_ood=[goal/emotion]",
    )  # fmt: skip
    assert found["conversations"]["by_view"]["control"] == 4
    assert found["config"]["splits"]["seed"] == 3
    assert found["config"]["splits"]["test_ood"] == ["goal/emotion"]
    assert found["sources"] == source_digests(tmp_path / "in")
    assert json.loads((tmp_path / "out" / "import.json").read_text())["config"] == found["config"]


def test_import_names_its_folder_after_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    latentqa("import", "mine")
    assert (tmp_path / "mine-imported" / "import.json").is_file()


def test_import_never_replaces_work(data: Path, tmp_path: Path) -> None:
    published(tmp_path / "in")
    with pytest.raises(
        StorageError, match="already exists and is not empty, expected a new or empty folder"
    ):
        latentqa("import", tmp_path / "in", "--out", data)


def test_a_failed_import_leaves_nothing(tmp_path: Path) -> None:
    write_folder(tmp_path / "in", qa={}, control="[{]")
    with pytest.raises(DataError, match=r"control\.json: not valid JSON at line 1, column 3"):
        latentqa("import", tmp_path / "in", "--out", tmp_path / "out")
    assert os.listdir(tmp_path) == ["in"]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("splits.sede=1", "expected FIELD=VALUE with one of limit, .* Did you mean splits.seed?"),
        ("limit", "expected FIELD=VALUE"),
        ("limit=0", "limit: got 0: Input should be greater than or equal to 1"),
        ("limit=many", "limit: got 'many': Input should be a valid integer"),
        ("splits.test=1.5", "splits.test: got 1.5"),
        ("splits.test=0.9", "leave nothing to train on|splits"),
        ("splits.test_ood=[a", "not valid YAML"),
    ],
)
def test_a_wrong_setting_is_one_line(override: str, words: str, tmp_path: Path) -> None:
    published(tmp_path / "in")
    args = ["--set", override, "--set", "splits.validation=0.2"]
    with pytest.raises(ConfigError, match=words) as caught:
        latentqa("import", tmp_path / "in", "--out", tmp_path / "out", *args)
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------ show


def test_show_prints_messages_and_questions(data: Path) -> None:
    result = latentqa("show", data, "--label", "persona-job-3", "--view", "stimulus")
    for text in (
        "persona-job-3 · stimulus",
        "control of persona-job-3",
        "stimulus_user of persona-job-3",
        "Q What about persona-job-3?",
        "A It is persona-job-3.",
        "1 of 1 rows",
    ):
        assert text in result.stdout


def test_show_filters_and_limits(data: Path) -> None:
    found = document("show", data, "--kind", "goal", "--limit", "3")
    assert (found["total"], found["shown"], len(found["rows"])) == (12, 3, 3)
    assert {r["kind"] for r in found["rows"]} == {"goal"}
    tests = document("show", data, "--split", "test", "--view", "system", "--limit", "99")
    assert {(r["split"], r["view"]) for r in tests["rows"]} == {("test", "system")}
    wild = document("show", data, "--label", "sqa-*")
    assert wild["total"] == 12


def test_show_takes_flags_of_rows(data: Path, tmp_path: Path) -> None:
    rows = read_conversations(data / "conversations" / "conversations.parquet")
    rows[1] = dataclasses.replace(rows[1], flags=("reveals_control",))
    write_conversations(tmp_path / "rows.parquet", rows)
    found = document("show", tmp_path / "rows.parquet", "--flag", "reveals*")
    assert [r["example_id"] for r in found["rows"]] == [rows[1].example_id]
    assert (
        "flags: reveals_control"
        in latentqa("show", tmp_path / "rows.parquet", "--flag", "reveals_control").stdout
    )


def test_show_names_what_there_is_when_nothing_fits(data: Path) -> None:
    with pytest.raises(
        ConfigError, match="--kind person: no row matches; the rows have extractive, goal"
    ):
        latentqa("show", data, "--kind", "person")
    with pytest.raises(ConfigError, match="--flag x: no row matches; the rows have none"):
        latentqa("show", data, "--flag", "x")


def test_filters_that_exclude_each_other_show_no_row(data: Path) -> None:
    found = document("show", data, "--kind", "goal", "--view", "system")
    assert (found["total"], found["rows"]) == (0, [])


def test_a_rows_text_cannot_drive_the_terminal(tmp_path: Path) -> None:
    text = "\x1b]0;title\x07[bold]not markup[/bold] \x1b[2J"
    label = "persona-job-x"
    write_folder(tmp_path / "in", qa={label: [["q", "a"]]}, control=[row("control", label, text)])
    latentqa("import", tmp_path / "in", "--out", tmp_path / "out")
    shown = latentqa("show", tmp_path / "out").stdout
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "␛]0;title␇[bold]not markup[/bold] ␛[2J" in shown


# ----------------------------------------------------------------------------------- stats


def test_stats_counts_everything(data: Path) -> None:
    found = document("stats", data)
    assert (found["controls"], found["examples"], found["questions"]) == (36, 72, 144)
    assert (found["distinct_questions"], found["unanswered"]) == (37, 0)
    assert found["by_view"]["system"] == {"controls": 12, "examples": 12, "questions": 24}
    assert found["by_kind"]["persona"] == {"controls": 12, "examples": 48, "questions": 96}
    assert found["by_category"]["goal/emotion"]["examples"] == 12
    assert found["dropped"] == {"no_conversation": 1}
    assert found["leaks"] == {"groups": [], "labels": [], "controls": []}
    assert found["characters"]["completion"]["count"] == 12
    assert found["characters"]["question"] == {
        "count": 144,
        "mean": found["characters"]["question"]["mean"],
        "median": 15.5,  # of "And then?" (9) and "What about sqa-eval-0?" (22)
        "p95": 26,
        "max": 27,
    }


def test_stats_shows_tables(data: Path) -> None:
    shown = latentqa("stats", data).stdout
    for text in ("persona/job", "stimulus_completion", "no_conversation", "is in two splits"):
        assert text in shown


def test_stats_finds_a_leak(data: Path, tmp_path: Path) -> None:
    rows = read_conversations(data / "conversations" / "conversations.parquet")
    control = next(r for r in rows if r.view == "control" and r.kind == "persona")
    system = next(r for r in rows if r.view == "system" and r.label == control.label)
    other: Split = "test" if control.split == "train" else "train"
    rows[rows.index(system)] = dataclasses.replace(system, split=other)
    write_conversations(tmp_path / "rows.parquet", rows)
    found = document("stats", tmp_path / "rows.parquet")
    assert found["leaks"] == {
        "groups": [control.group_id],
        "labels": [control.label],
        "controls": [control.control_id],
    }
    shown = latentqa("stats", tmp_path / "rows.parquet").stdout
    assert "1 groups in more than one split" in shown
    assert "is in two splits" not in shown


# ---------------------------------------------------------------------------------- export


def test_export_gives_the_published_files_back(data: Path, tmp_path: Path) -> None:
    latentqa("export", data, "--format", "latentqa", "--out", tmp_path / "back")
    assert source_digests(tmp_path / "back") == source_digests(published(tmp_path / "again"))


def test_export_writes_json_lines(data: Path, tmp_path: Path) -> None:
    result = latentqa("export", data, "--format", "jsonl", "--out", tmp_path / "rows.jsonl")
    assert "72 conversations, 144 questions as jsonl" in result.stdout
    lines = (tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 72
    assert len(json.loads(lines[0])["questions"]) == 2


def test_export_writes_a_datasets_folder(data: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    latentqa("export", data, "--format", "datasets", "--out", tmp_path / "ds")
    assert sum(map(len, datasets.load_from_disk(str(tmp_path / "ds")).values())) == 72
    assert sorted(os.listdir(tmp_path)) == ["ds"]


def test_what_export_writes_as_parquet_is_shown_counted_and_exported(
    data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "shards"
    latentqa("export", data, "--format", "parquet", "--out", out)
    whole = {row["example_id"]: row for row in document("show", data, "--limit", "999")["rows"]}
    found = {row["example_id"]: row for row in document("show", out, "--limit", "999")["rows"]}
    assert found == whole
    assert document("stats", out)["questions"] == document("stats", data)["questions"]
    shard = next((out / "data").glob("train-*"))
    own = document("show", shard, "--limit", "999")["rows"]
    assert own == [found[row["example_id"]] for row in own]
    latentqa("export", out, "--format", "latentqa", "--out", tmp_path / "back")
    latentqa("export", data, "--format", "latentqa", "--out", tmp_path / "plain")
    # labels that no row asks for are dropped rows, which shards leave out
    files = [path for path in (tmp_path / "plain").iterdir() if path.name != "qa.json"]
    assert files
    for path in files:
        assert (tmp_path / "back" / path.name).read_bytes() == path.read_bytes()


def test_an_upload_that_fails_leaves_no_shards_that_a_second_try_trips_over(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("export", data, "--format", "parquet", "--out", tmp_path / "x", "--repo", "me/rows")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(ConfigError, match="HF_TOKEN is not set"):
        latentqa(*words)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("questions", [[1], [[{"question": "Who?"}]], [[{"question": 1}]]])
def test_shards_with_other_questions_are_one_line(
    questions: list[Any], data: Path, tmp_path: Path
) -> None:
    rows = read_conversations(data / "conversations/conversations.parquet")[:1]
    write_conversations(tmp_path / "x.parquet", rows)
    table = pq.read_table(tmp_path / "x.parquet")
    pq.write_table(table.append_column("questions", pa.array(questions)), tmp_path / "x.parquet")
    with pytest.raises(DataError, match="column 'questions' cannot be used"):
        latentqa("show", tmp_path / "x.parquet")


def test_export_refuses_what_it_cannot_do(data: Path, tmp_path: Path) -> None:
    assert latentqa("export", data, "--format", "csv", "--out", tmp_path / "x").exit_code == 2
    with pytest.raises(DataError, match="found no questions for these conversations"):
        latentqa("export", data / "conversations", "--format", "latentqa", "--out", tmp_path / "x")
    (tmp_path / "rows.jsonl").write_text("mine")
    with pytest.raises(ConfigError, match="already exists; name a new file"):
        latentqa("export", data, "--format", "jsonl", "--out", tmp_path / "rows.jsonl")
    with pytest.raises(StorageError, match="already exists"):
        latentqa("export", data, "--format", "datasets", "--out", data)


# ------------------------------------------------------------------------------------ REFs


@pytest.mark.parametrize("ref", ["mine", "mine:latest", "questions/bbb", "train/cccc"])
def test_a_ref_stands_for_the_data_behind_it(ref: str, artifacts: Path) -> None:
    found = document("stats", ref, "--root", artifacts)
    assert (found["examples"], found["questions"]) == (72, 144)
    assert found["dropped"] == {"no_conversation": 1}


def test_conversations_alone_have_no_questions(artifacts: Path) -> None:
    found = document("stats", "conversations/aaaa", "--root", artifacts)
    assert (found["examples"], found["questions"], found["unanswered"]) == (72, 0, 72)


@pytest.mark.parametrize("part", ["", "data"])
def test_a_path_into_an_artifact_is_a_ref(part: str, artifacts: Path) -> None:
    path = artifacts / "questions" / ("b" * 16) / part
    assert document("stats", path, "--root", artifacts)["questions"] == 144


def test_the_root_is_taken_from_the_environment(
    artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATENTQA_ROOT", str(artifacts))
    assert document("stats", "mine")["examples"] == 72


def test_a_ref_that_names_nothing_is_an_error(artifacts: Path, tmp_path: Path) -> None:
    with pytest.raises(LookupError, match=r"nothing: names nothing in .*names here: mine"):
        latentqa("stats", "nothing", "--root", artifacts)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: found no conversations\.parquet"):
        latentqa("stats", tmp_path / "empty", "--root", artifacts)


def test_the_commands_load_nothing_heavy(data: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from typer.testing import CliRunner;"
        "from latentqa.commands.stored.data import app;"
        f"r = CliRunner().invoke(app, ['stats', {str(data)!r}, '--json']);"
        "assert r.exit_code == 0, r.exception;"
        "print([m for m in ('torch', 'transformers', 'datasets', 'prefect') if m in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=CHECKOUT
    )
    assert found.stdout.strip() == "[]"
