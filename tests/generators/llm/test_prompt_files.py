from pathlib import Path

import pytest

from core.errors import ConfigError
from generators.kinds import KINDS, written_kinds
from generators.kinds.base import WrittenKind
from generators.llm.prompt_files import PromptFiles, fill

HARD = 'braces {x} {{y}} {{{z}}} "quotes" \\n \\1 %s ${a} 日本語 😀 ' + "x" * 20_000


def test_content_passes_through_a_template_unharmed() -> None:
    assert fill("<{{a}}|{{b}}>", {"a": HARD, "b": "{{a}}"}) == f"<{HARD}|{{{{a}}}}>"


def test_a_slot_without_a_value_is_named() -> None:
    with pytest.raises(ConfigError, match=r"\{\{b\}\} has no value; known here: \['a'\]"):
        fill("{{b}}", {"a": "x"})


def test_a_request_ends_with_what_differs_between_requests() -> None:
    prompt = PromptFiles().prompt("persona_control")
    one, two = prompt.messages({"idea": "a fox"}), prompt.messages({"idea": HARD})
    assert one[:-1] == two[:-1]
    assert HARD in two[-1][1]


@pytest.mark.parametrize("kind", written_kinds(KINDS).values(), ids=written_kinds(KINDS))
def test_packaged_prompts_show_examples_of_what_they_ask_for(kind: WrittenKind) -> None:
    names = ["stimulus", kind.control_prompt, *kind.question_prompts]
    for name in names:
        prompt = PromptFiles().prompt(name)
        assert len(prompt.examples) >= 3
        for values, reply in prompt.examples:
            assert list(reply) == list(prompt.reply)
            assert all(isinstance(text, str) and text.strip() for text in reply.values())
            prompt.messages(values)


def test_packaged_seeds_are_many_and_distinct() -> None:
    texts = PromptFiles()
    persona, goal, topics = (texts.seeds_by_category(n) for n in ("persona", "goal", "extractive"))
    assert len(persona) >= 18
    assert len(goal) >= 8
    assert sum(map(len, topics.values())) >= 80
    for seeds in (persona, goal, topics):
        ideas = [idea for ideas in seeds.values() for idea in ideas]
        assert len(set(ideas)) == len(ideas)
        assert all(len(ideas) >= 6 for ideas in seeds.values())
    everyday = texts.seed_list("everyday")
    assert len(set(everyday)) == len(everyday) >= 60


def own_prompt(folder: Path, text: str) -> PromptFiles:
    folder.mkdir(exist_ok=True)
    (folder / "stimulus.yaml").write_text(text)
    return PromptFiles(prompts=folder)


GOOD = """\
version: 2
system: Write a message.
user: "About {{subject}}"
examples: []
reply:
  message: {type: string}
max_tokens: 5
"""


def test_a_users_prompt_replaces_the_packaged_one_and_has_its_own_digest(tmp_path: Path) -> None:
    texts = own_prompt(tmp_path / "prompts", GOOD)
    assert texts.prompt("stimulus").system == "Write a message."
    assert texts.prompt("goal_control").digest == PromptFiles().prompt("goal_control").digest
    own = texts.digests(prompts=("stimulus", "goal_control"), seeds=("goal",))
    packaged = PromptFiles().digests(prompts=("stimulus", "goal_control"), seeds=("goal",))
    assert [name for name in own if own[name] != packaged[name]] == ["prompts/stimulus"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "not valid YAML for"),
        ("just words", "expected a mapping"),
        (GOOD.replace("max_tokens: 5", ""), "'max_tokens' is missing"),
        (GOOD + "extra: 1\n", "'extra' is unknown"),
        (GOOD.replace("examples: []", "examples: [{fill: {a: b}}]"), "needs `fill` and `reply`"),
    ],
)
def test_a_broken_prompt_is_named_with_its_trouble(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=f"stimulus.yaml.*{words}"):
        own_prompt(tmp_path / "prompts", text).prompt("stimulus")


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"generate\.prompts: .* is not a folder"):
        PromptFiles(prompts=tmp_path / "none").prompt("stimulus")
    with pytest.raises(ConfigError, match=r"found no nothing\.yaml"):
        PromptFiles().prompt("nothing")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (GOOD.replace("{{subject}}", "{{subjct}}"), r"\{\{subjct\}\} is no slot of this prompt"),
        (GOOD.replace("{{subject}}", "{subject}"), r"\{\{subject\}\} is missing in this prompt"),
        (GOOD.replace("{{subject}}", "{{subject}} {{mood}}"), r"\{\{mood\}\} is no slot of"),
        (GOOD.replace("{{subject}}", "{{subject"), r"not a Jinja template"),
        (
            GOOD.replace("examples: []", "examples: [{fill: {subjct: x}, reply: {message: y}}]"),
            r"examples\[0\]\.fill: 'subjct' does not match",
        ),
        (GOOD.replace("{type: string}", "{type: strin}"), r"reply: no JSON schema"),
        (GOOD.replace("max_tokens: 5", "max_tokens: many"), r"max_tokens: expected a int"),
        (GOOD.replace("max_tokens: 5", "max_tokens: 0"), r"max_tokens: got 0, expected 1"),
        (
            GOOD.replace("Write a message.", "Write on {{subject}}."),
            r"system: \{\{subject\}\} is never",
        ),
        (GOOD.replace("message: {", "text: {"), r"reply: 'message' is missing; expected"),
        (GOOD.replace("{type: string}", "{type: integer}"), r"'message' is \{type: integer\}"),
        (GOOD.replace("{type: string}", "true"), r"'message' is \{type: None\}; expected"),
        (GOOD + "max_tokens: 6\n", "duplicate key"),
        (
            GOOD.replace("[]", "[{fill: {subject: 3}, reply: {message: y}}]"),
            r"subject: got 3, expected a",
        ),
        (
            GOOD.replace("[]", "[{fill: {subject: x}, reply: {mesage: y}}]"),
            r"examples\[0\]\.reply: does",
        ),
        (
            GOOD.replace("[]", "[{fill: {subject: x}, reply: {message: [y]}}]"),
            r"\.reply: does not fit",
        ),
    ],
)
def test_slots_and_schemas_are_checked_when_a_prompt_is_read(
    tmp_path: Path, text: str, words: str
) -> None:
    texts = own_prompt(tmp_path / "prompts", text)
    with pytest.raises(ConfigError, match=f"stimulus.yaml.*{words}"):
        texts.digests(prompts=("stimulus",), seeds=())


def test_a_field_more_in_a_reply_is_the_users_to_ask_for(tmp_path: Path) -> None:
    text = GOOD.replace("reply:\n", "reply:\n  why: {type: string}\n")
    assert set(own_prompt(tmp_path / "prompts", text).prompt("stimulus").reply) == {
        "why",
        "message",
    }


@pytest.mark.parametrize("name", ["stimulous.yaml", "stimulus.yml"])
def test_a_file_that_replaces_none_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(GOOD)
    with pytest.raises(ConfigError, match=r"generate\.prompts: .*did you mean stimulus\.yaml"):
        PromptFiles(prompts=tmp_path).digests(prompts=("stimulus",), seeds=())


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("persona", "{}", "expected categories"),
        ("goal", "form: not a list", "expected categories"),
        ("persona", "1: [a cook]", "key 1 is not text"),
        ("persona", "sea: ['', a cook]", "expected categories"),
        ("persona", "- a cook", "expected categories"),
        ("everyday", "[]", "expected a list of texts"),
        ("everyday", "sea: [a cook]", "expected a list of texts"),
        ("everyday", "- a cook\n- 3", "expected a list of texts"),
    ],
)
def test_seeds_are_checked_before_anything_is_asked(
    tmp_path: Path, name: str, text: str, words: str
) -> None:
    (tmp_path / f"{name}.yaml").write_text(text)
    with pytest.raises(ConfigError, match=f"{name}\\.yaml.*{words}"):
        PromptFiles(seeds=tmp_path).digests(prompts=(), seeds=(name,))


def test_a_value_that_has_no_slot_is_named() -> None:
    with pytest.raises(ConfigError, match=r"no slot \{\{b\}\}.*the text has \['a'\]"):
        fill("{{a}}", {"a": "x", "b": "y"})


def test_a_template_runs_no_code_of_its_own() -> None:
    with pytest.raises(ConfigError):
        fill("{{a.__class__.__mro__}}", {"a": "x"})
