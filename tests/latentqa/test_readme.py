"""What README and docs show is true: commands and their options, YAML, links."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from pydantic import BaseModel

from activation_store.layout.config import DumpSection
from activation_store.target.config import CompleteConfig
from core.runtime import Runtime
from generators.making.config import GenerateSection
from latentqa.cli import app
from trainers.config import TrainConfig

CHECKOUT = Path(__file__).parents[2]
PAGES = [CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").glob("*.md"))]
README = PAGES[0].read_text()


def commands(page: Path) -> list[list[str]]:
    """Words of each `latentqa` command that `page` shows."""
    text = page.read_text()
    lines = [
        line.removeprefix("$ ")
        for block in re.findall(r"```console\n(.*?)```", text, flags=re.DOTALL)
        for line in block.splitlines()
    ]
    lines += re.findall(r"`(latentqa [^`]+)`", text)
    return [
        shlex.split(line[line.index("latentqa ") :], comments=True)[1:]
        for line in lines
        if re.match(r"(\w+=\S+ )*latentqa ", line)
    ]


SHOWN = [(page.name, words) for page in PAGES for words in commands(page)]


@pytest.mark.parametrize(("page", "words"), SHOWN, ids=lambda value: " ".join(value)[:60])
def test_every_command_shown_is_there_with_its_options(page: str, words: list[str]) -> None:
    command: Any = typer.main.get_command(app)
    words = list(words)
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    assert not hasattr(command, "commands") or not words, f"{page}: no command {words[0]}"
    known = {name for option in command.params for name in option.opts}
    for word in words:
        if word.startswith("--"):
            assert word in known, f"{page}: no option {word}"
        if word.startswith("experiments/"):
            assert (CHECKOUT / word).is_file()


def test_commands_were_found() -> None:
    assert len(SHOWN) >= 8


@pytest.mark.parametrize("block", re.findall(r"```yaml\n(.*?)```", README, flags=re.DOTALL))
def test_the_readmes_endpoints_are_valid(block: str) -> None:
    GenerateSection.model_validate(yaml.safe_load(block)["generate"])


@pytest.mark.parametrize(("page", "shown"), [("training.md", 5), ("scale.md", 3)])
def test_the_settings_shown_are_valid(page: str, shown: int) -> None:
    text = (CHECKOUT / "docs" / page).read_text()
    blocks = re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
    assert len(blocks) == shown
    sections: dict[str, type[BaseModel]] = {
        "train": TrainConfig,
        "complete": CompleteConfig,
        "dump": DumpSection,
        "runtime": Runtime,
    }
    for block in blocks:
        for name, settings in yaml.safe_load(block).items():
            sections[name].model_validate(settings)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"
