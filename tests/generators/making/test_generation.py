import asyncio
import json
import os
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from endpoints import REASONS, complete, conversations, questions, resolved, small
from forks import fork_server
from http_endpoint import ScriptedResponse
from scripted_endpoint import Fault, ScriptedEndpoint

from core.errors import ConfigError, DataError, EndpointError
from core.records.table_files import read_conversations, read_dropped, read_questions
from generators.llm.chat.request import Request
from generators.llm.endpoint.config import SamplingConfig
from generators.llm.endpoint.prices import Price
from generators.llm.log.request_log import RequestLog
from generators.llm.prompt_files import PromptFiles
from generators.llm.session import LLMSession
from generators.llm.testing import is_probe, plausible_reply
from generators.making.config import GenerateSection, QuestionsConfig, limit_controls
from generators.making.externals import generation_externals, texts_of
from generators.making.generation import generate_conversations
from generators.splits import split_sizes

TABLES = (
    "c/conversations.parquet",
    "c/dropped.parquet",
    "q/questions.parquet",
    "q/dropped.parquet",
)


def both(folder: Path, endpoint: ScriptedEndpoint, **changes: Any) -> None:
    conversations(folder, resolved(endpoint, **changes))
    questions(folder, resolved(endpoint, **changes))


def tables(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in TABLES]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six controls of each kind and their questions, from a sound endpoint."""
    folder = tmp_path_factory.mktemp("made")
    with ScriptedEndpoint() as endpoint:
        conversations(folder, resolved(endpoint), small(6))
        questions(folder, resolved(endpoint))
    return folder


def test_every_planned_control_has_every_view_of_its_kind(made: Path) -> None:
    views = defaultdict(set)
    kinds = {}
    for row in read_conversations(made / "c/conversations.parquet"):
        views[row.control_id].add(row.view)
        kinds[row.control_id] = row.kind
    assert Counter(kinds.values()) == {"persona": 6, "goal": 6, "extractive": 6}
    for control, seen in views.items():
        wanted = (
            {"control"} if kinds[control] == "extractive" else {"control", "stimulus", "system"}
        )
        assert seen == wanted


def test_rows_have_the_messages_of_their_view(made: Path) -> None:
    for row in read_conversations(made / "c/conversations.parquet"):
        shape = [(m.role, m.segment) for m in row.messages]
        assert (
            shape
            == {
                "control": [("user", "control")],
                "stimulus": [("user", "control"), ("assistant", "control"), ("user", "stimulus")],
                "system": [("system", "control"), ("user", "stimulus")],
            }[row.view]
        )
        assert len(row.provenance["requests"]) == (1 if row.view == "control" else 2)
        with RequestLog(made / "log.sqlite") as log:
            assert all(log.get(key) for key in row.provenance["requests"])


def test_every_row_has_the_questions_of_its_control(made: Path) -> None:
    rows = read_conversations(made / "c/conversations.parquet")
    asked = defaultdict(list)
    for question in read_questions(made / "q/questions.parquet"):
        asked[question.example_id].append((question.type, question.question, question.answer))
    by_control = defaultdict(set)
    for row in rows:
        types = Counter(found[0] for found in asked[row.example_id])
        if row.kind == "extractive":
            assert types == {"extraction": 4}
            assert all(answer in row.control for _, _, answer in asked[row.example_id])
        else:
            assert types == {"description": 2, "prediction": 2}
        by_control[row.control_id].add(tuple(asked[row.example_id]))
    assert all(len(found) == 1 for found in by_control.values())


def test_stimuli_are_asked_without_sight_of_their_controls(tmp_path: Path) -> None:
    everyday = {f"Subject: {subject}" for subject in PromptFiles().seed_list("everyday")}
    with ScriptedEndpoint() as endpoint:
        conversations(tmp_path, resolved(endpoint))
        asked = [
            body["messages"]
            for body in endpoint.work
            if body["response_format"]["json_schema"]["name"] == "stimulus"
        ]
    assert len(asked) == 8
    assert len({str(messages[:-1]) for messages in asked}) == 1
    assert {messages[-1]["content"] for messages in asked} <= everyday


def test_the_tables_do_not_depend_on_the_order_in_which_replies_come(tmp_path: Path) -> None:
    def slow(request: Mapping[str, Any]) -> Any:
        time.sleep(random.random() * 0.05)
        return plausible_reply(request)

    for name, reply in (("quick", plausible_reply), ("slow", slow)):
        (tmp_path / name).mkdir()
        with ScriptedEndpoint(reply) as endpoint:
            both(tmp_path / name, endpoint)
    assert tables(tmp_path / "quick") == tables(tmp_path / "slow")


def test_transient_faults_change_nothing(tmp_path: Path) -> None:
    draw = random.Random(5)
    kinds: list[Fault | None] = ["429", "500", "garbage", *[None] * 9]
    lock = threading.Lock()

    def fault(number: int, request: Mapping[str, Any]) -> Fault | None:
        with lock:
            return draw.choice(kinds) if number > 1 else None

    for name, faults in (("sound", lambda number, request: None), ("faulty", fault)):
        (tmp_path / name).mkdir()
        with ScriptedEndpoint(fault=faults) as endpoint:
            both(tmp_path / name, endpoint, retries=8)
    assert tables(tmp_path / "sound") == tables(tmp_path / "faulty")


def test_bad_replies_are_listed_with_their_reasons_and_replaced(tmp_path: Path) -> None:
    faults: list[Fault] = [
        "bad_json",
        "cut_off",
        "refusal",
        "filtered",
        "empty",
        "prose",
        "400",
    ]
    drawn_for: dict[str, Fault] = {}
    lock = threading.Lock()

    def fault(number: int, request: Mapping[str, Any]) -> Fault | None:
        # what breaks its schema does so again when it is asked for once more
        asked = next(m["content"] for m in reversed(request["messages"]) if is_asked(m))
        with lock:
            if number > 1 and faults and asked not in drawn_for:
                drawn_for[asked] = faults.pop(0)
        return drawn_for.get(asked)

    def is_asked(message: Mapping[str, Any]) -> bool:
        return message["role"] == "user" and "cannot be used" not in message["content"]

    with ScriptedEndpoint(fault=fault) as endpoint:
        counts = conversations(tmp_path, resolved(endpoint), small(8))
    assert all(found == {"planned": 8, "kept": 8} for found in counts["by_kind"].values())
    dropped = read_dropped(tmp_path / "c/dropped.parquet")
    drawn = "gives_control_away"  # a word that the scripted endpoint draws can be the control's
    assert Counter(row.reason for row in dropped if row.reason != drawn) == {
        "malformed": 2,
        "cut_off": 1,
        "refusal": 1,
        "filtered": 1,
        "empty": 1,
        "failed": 1,
    }
    assert counts["dropped"] == dict(sorted(Counter(row.reason for row in dropped).items()))
    assert {row.reason for row in dropped} <= REASONS
    assert all(row.where.startswith("control ") for row in dropped if row.reason != drawn)


def test_a_quota_is_not_asked_for_without_end(tmp_path: Path) -> None:
    def same(request: Mapping[str, Any]) -> Any:
        if request["response_format"]["json_schema"]["name"] != "goal_control":
            return plausible_reply(request)
        return {"reason": "the user once dreamt of being an actor"}  # as in the few-shot example

    with ScriptedEndpoint(same) as endpoint:
        with pytest.raises(DataError, match=r"no reply for goal could be kept \(copied_answer 8"):
            conversations(tmp_path, resolved(endpoint), small(4))
        names = Counter(b["response_format"]["json_schema"]["name"] for b in endpoint.work)
    assert names["goal_control"] == 8


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("<html>gateway</html>", "failed 4.*no chat completion: HTML, '<html>gateway"),
        ('{"choices": [{"mess', "failed 4.*JSON that is cut or broken"),
        (b"\x1f\x8b\x08\x00\xff\xfe\xfd", r"failed 4.*no text \(compressed"),
    ],
)
def test_where_nothing_could_be_kept_the_cause_is_told(
    tmp_path: Path, body: str | bytes, words: str
) -> None:
    class Broken(ScriptedEndpoint):
        def complete(self, request: dict[str, Any]) -> ScriptedResponse:
            made = super().complete(request)
            return made if is_probe(request) else ScriptedResponse(200, body)

    config = small(kinds={"goal": {"controls": 2}})
    with Broken() as endpoint, pytest.raises(DataError, match=words):
        conversations(tmp_path, resolved(endpoint, retries=0), config)


def test_a_second_run_asks_nothing_and_needs_no_endpoint(made: Path, tmp_path: Path) -> None:
    for name in ("log.sqlite", "log.sqlite-wal", "log.sqlite-shm"):
        if (made / name).exists():
            (tmp_path / name).write_bytes((made / name).read_bytes())
    with ScriptedEndpoint() as endpoint:
        gone = resolved(endpoint, base_url="http://127.0.0.1:9/v1")
    counts = conversations(tmp_path, gone, small(6))
    assert counts["requests"] == 0
    assert counts["cached_requests"] > 0
    assert questions(tmp_path, gone)["requests"] == 0
    assert tables(tmp_path) == tables(made)


def test_a_changed_question_prompt_asks_questions_again_and_nothing_else(tmp_path: Path) -> None:
    own = tmp_path / "prompts"
    own.mkdir()
    packaged = Path(__file__).parents[3] / "generators/prompts/persona_prediction.yaml"
    (own / packaged.name).write_text(packaged.read_text().replace("many characters", "many parts"))
    with ScriptedEndpoint() as endpoint:
        both(tmp_path, endpoint)
        before = len(endpoint.work)
        questions(tmp_path, resolved(endpoint), texts=PromptFiles(prompts=own))
        again = Counter(b["response_format"]["json_schema"]["name"] for b in endpoint.work[before:])
    assert set(again) == {"persona_prediction"}

    section = GenerateSection.model_validate({"endpoint": {"model": "scripted"}})
    changed = section.model_copy(update={"prompts": str(own)})
    old, new = generation_externals(section), generation_externals(changed)
    assert old["conversations"] == new["conversations"]
    assert old["questions"] != new["questions"]


def test_a_larger_plan_begins_with_the_smaller_one_and_asks_only_the_rest(tmp_path: Path) -> None:
    with ScriptedEndpoint() as endpoint:
        conversations(tmp_path, resolved(endpoint), small(3))
        few = read_conversations(tmp_path / "c/conversations.parquet")
        counts = conversations(tmp_path, resolved(endpoint), small(9))
        many = read_conversations(tmp_path / "c/conversations.parquet")
    assert counts["cached_requests"] == 15  # 9 controls, 6 stimuli
    for kind in ("persona", "goal", "extractive"):
        first = [row.example_id for row in few if row.kind == kind]
        assert [row.example_id for row in many if row.kind == kind][: len(first)] == first


def test_a_held_out_category_is_test_ood_and_groups_stay_whole(tmp_path: Path) -> None:
    config = small(22, splits={"test": 0.2, "test_ood": ["persona/sea", "goal/tone"]})
    with ScriptedEndpoint() as endpoint:
        counts = conversations(tmp_path, resolved(endpoint), config)
    rows = read_conversations(tmp_path / "c/conversations.parquet")
    for row in rows:
        held_out = f"{row.kind}/{row.category}" in config.splits.test_ood
        assert (row.split == "test_ood") == held_out
    splits = defaultdict(set)
    for row in rows:
        splits[row.group_id].add(row.split)
    assert all(len(found) == 1 for found in splits.values())
    assert counts["by_split"]["test"] >= 12
    assert sum(counts["by_split"].values()) == counts["controls"] == 66


def test_a_small_plan_may_miss_a_held_out_category_but_not_a_made_up_one(tmp_path: Path) -> None:
    with ScriptedEndpoint() as endpoint:
        ok = small(1, splits={"test_ood": ["persona/sea", "goal/tone", "goal/form"]})
        conversations(tmp_path, resolved(endpoint), ok)
        for config, words in (
            (small(1, splits={"test_ood": ["goal/nothing"]}), "unknown category 'goal/nothing'"),
            (small(1, kinds={"personas": {}}), "unknown kind 'personas' .did you mean 'persona'"),
            (small(1, kinds={"extractive": {"views": ["system"]}}), "got 'system', expected views"),
        ):
            before = len(endpoint.requests)
            with pytest.raises(ConfigError, match=words):
                conversations(tmp_path, resolved(endpoint), config)
            assert len(endpoint.requests) == before


def test_asking_for_no_type_that_a_kind_has_is_refused(made: Path) -> None:
    with ScriptedEndpoint() as endpoint:
        config = QuestionsConfig(types=("extraction",))
        with pytest.raises(ConfigError, match="'persona' has description, prediction"):
            questions(made, resolved(endpoint), config)


def test_an_endpoint_that_keeps_failing_stops_the_run_and_keeps_what_it_had(tmp_path: Path) -> None:
    def fault(number: int, request: Mapping[str, Any]) -> Fault | None:
        return "500" if number > 10 else None

    with (
        ScriptedEndpoint(fault=fault) as endpoint,
        pytest.raises(EndpointError, match=r"requests in a row failed.*HTTP 500"),
    ):
        conversations(tmp_path, resolved(endpoint, retries=0), small(20))
    with RequestLog(tmp_path / "log.sqlite") as log:
        assert log.rows("SELECT count(*) FROM replies") == [(10,)]  # the probe among them
    assert not (tmp_path / "c").exists()


def test_at_most_spreads_few_controls_over_the_kinds() -> None:
    assert [p.controls for p in limit_controls(small(24), 24).kinds.values()] == [8, 8, 8]


def test_few_controls_are_enough_for_every_split() -> None:
    assert [p.controls for p in limit_controls(small(24), 8).kinds.values()] == [4, 4, 4]
    few = limit_controls(small(1), 8)
    assert [p.controls for p in few.kinds.values()] == [4, 4, 4]
    assert split_sizes(4, few.splits) == split_sizes(4, few.splits, in_order=True)
    assert split_sizes(4, few.splits) == {"train": 1, "validation": 1, "test": 2}


def test_it_runs_where_an_event_loop_runs_already(tmp_path: Path) -> None:
    with ScriptedEndpoint() as endpoint:

        async def notebook() -> dict[str, Any]:
            return conversations(tmp_path, resolved(endpoint), small(1))

        assert asyncio.run(notebook())["controls"] == 3


_WORKER = """
import sys
from pathlib import Path
from generators.llm.endpoint.resolve import ResolvedEndpoint
from endpoints import conversations, questions
endpoint = ResolvedEndpoint(
    base_url=sys.argv[2], api_key="none", model="scripted", identity="scripted@1", slots=8
)
conversations(Path(sys.argv[1]), endpoint)
questions(Path(sys.argv[1]), endpoint)
"""


def test_killed_again_and_again_it_ends_with_the_same_tables_and_repeats_nothing(
    tmp_path: Path,
) -> None:
    root = Path(__file__).parents[3]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    with ScriptedEndpoint() as endpoint:
        both(whole, endpoint)
    draw = random.Random(3)
    with (
        ScriptedEndpoint(latency_s=0.05) as endpoint,
        fork_server(tmp_path / "forks", os.environ, "endpoints") as forks,
    ):
        for turn in range(4):
            before = len(endpoint.work)
            words = ("-c", _WORKER, str(killed), endpoint.base_url)
            process = forks.start(*words, cwd=root, env=os.environ)
            if turn == 3:
                assert process.wait(240) == 0
                break
            while len(endpoint.work) < before + 8 and process.poll() is None:
                time.sleep(0.01)
            time.sleep(draw.random() * 0.1)
            process.stop()
        asked = Counter(
            str((b["messages"], b["seed"], b["response_format"])) for b in endpoint.work
        )
    assert tables(whole) == tables(killed)
    # a request can be asked again only if the kill came before its reply; `slots` are under way
    assert sum(count - 1 for count in asked.values()) <= 3 * 8


def test_cost_is_counted_and_unknown_where_there_is_no_price(tmp_path: Path) -> None:
    price = Price(input=10.0, output=20.0)
    with ScriptedEndpoint() as endpoint:
        counts = conversations(tmp_path, resolved(endpoint, price=price), small(2))
        assert counts["cost_usd"] == pytest.approx((counts["requests"] + 1) * (500 + 400) / 1e6)
        assert counts["structured"] == "schema"
        assert conversations(tmp_path, resolved(endpoint), small(3))["cost_usd"] is None


def test_how_schemas_are_followed_is_part_of_what_a_table_is() -> None:
    def externals(**endpoint: Any) -> dict[str, dict[str, Any]]:
        section = {"endpoint": {"model": "m", "base_url": "http://x/v1"} | endpoint}
        return generation_externals(GenerateSection.model_validate(section))

    plain = externals()
    assert set(plain["conversations"]) == set(plain["questions"]) == {"generator", "rules", "texts"}
    assert plain == externals(
        structured="schema", budget_usd=1, prices="p.yaml", requests_per_minute=5, timeout_s=1
    )
    assert externals(structured="auto")["questions"]["structured"] == "auto"
    assert externals(structured="json") != externals(structured="prompt")


def test_the_tables_of_an_endpoint_without_schemas_are_whole(tmp_path: Path) -> None:
    with ScriptedEndpoint(formats=(), refuses_formats=True) as endpoint:
        both(tmp_path, endpoint, structured="auto")
        counts = conversations(tmp_path, resolved(endpoint, structured="auto"))
    assert all(found == {"planned": 4, "kept": 4} for found in counts["by_kind"].values())
    assert (counts["structured"], counts["requests"]) == ("prompt", 0)


def test_braces_quotes_scripts_and_length_pass_unharmed(tmp_path: Path) -> None:
    odd = '{"a": [}} {{idea}} \\ \'"` \u0000-free 语言 العربية 🦊‍🔥 ' + "x" * 20_000
    prompt = PromptFiles().prompt("goal_control")
    messages = prompt.messages({"idea": odd})
    assert odd in messages[-1][1]
    asked = Request(
        messages=messages,
        schema=prompt.schema,
        name="odd",
        max_tokens=9,
        sampling=SamplingConfig(),
    )

    def echo(body: Mapping[str, Any]) -> Any:
        return (
            plausible_reply(body) if is_probe(body) else {"reason": body["messages"][-1]["content"]}
        )

    for structured in ("schema", "prompt"):
        with ScriptedEndpoint(echo) as endpoint:
            at = resolved(endpoint, structured=structured)
            ((outcome,), _) = complete(at, tmp_path, [asked])
            assert json.loads(outcome.content) == {"reason": messages[-1][1]}


def test_secrets_reach_no_file(tmp_path: Path) -> None:
    def fault(number: int, request: Mapping[str, Any]) -> Fault | None:
        faults: dict[int, Fault] = {3: "400", 5: "429", 7: "garbage"}
        return faults.get(number)

    with ScriptedEndpoint(
        fault=fault, headers=lambda number: {"X-Request-Id": "sk-secret-0123456789"}
    ) as endpoint:
        both(tmp_path, endpoint)
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert b"sk-secret" not in path.read_bytes()


def test_the_users_folders_are_taken_from_the_section() -> None:
    section = GenerateSection(prompts="mine/prompts", seeds="mine/seeds")
    assert texts_of(section) == PromptFiles(prompts=Path("mine/prompts"), seeds=Path("mine/seeds"))
    assert texts_of(GenerateSection()) == PromptFiles()


def test_a_dataset_of_another_maker_can_be_asked_about(made: Path, tmp_path: Path) -> None:
    with ScriptedEndpoint() as endpoint:
        counts = questions_alone(made, tmp_path, endpoint)
    assert counts["questions_asked"] == 18 * 4


def questions_alone(made: Path, out: Path, endpoint: ScriptedEndpoint) -> dict[str, Any]:
    (out / "c").mkdir()
    (out / "c/conversations.parquet").write_bytes((made / "c/conversations.parquet").read_bytes())
    return questions(out, resolved(endpoint))


def test_progress_ends_at_its_total(tmp_path: Path) -> None:
    told: list[tuple[int, int, str]] = []
    with ScriptedEndpoint() as endpoint:
        generate_conversations(
            tmp_path,
            LLMSession(log=tmp_path / "log.sqlite", endpoint=resolved(endpoint)),
            config=small(2),
            progress=lambda done, total, note="": told.append((done, total, note)),
        )
    first = next(entry for entry in told if entry[0] == entry[1])
    assert (first[:2], first[2].startswith("controls (")) == ((6, 6), True)
    # 10 replies of 70 tokens; what they cost is not known, so no money is shown
    assert told[-1] == (4, 4, "stimuli (770 tokens)")


def test_where_one_type_of_question_fails_another_stands_in(tmp_path: Path) -> None:
    def no_predictions(request: Mapping[str, Any]) -> Any:
        name = request["response_format"]["json_schema"]["name"]
        return "I'd rather not." if name.endswith("prediction") else plausible_reply(request)

    with ScriptedEndpoint(no_predictions) as endpoint:
        conversations(tmp_path, resolved(endpoint))
        counts = questions(tmp_path, resolved(endpoint))
    assert counts["by_type"] == {"description": 8 * 4, "extraction": 4 * 4}
    assert counts["dropped"] == {"malformed": 8 * 4}
