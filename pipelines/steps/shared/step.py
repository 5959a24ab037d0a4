"""Steps: what decides an output, what it is made from, and the function that makes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from activation_store.layout.config import CaptureConfig
from core.documents.canonical import digest
from core.errors import ConfigError, DamagedError, RefError, StoreError
from core.files import sha256_file
from core.processes.task_pool import TaskPool
from core.progress import Progress
from pipelines.artifacts.artifact import DATA, Artifact
from pipelines.artifacts.cache_key import plain
from pipelines.artifacts.records import StepResult
from pipelines.artifacts.refs import Refs
from pipelines.artifacts.root import ArtifactRoot
from pipelines.experiment.config import Experiment

if TYPE_CHECKING:
    from activation_store.model_files.files import ModelFiles
    from decoder.sources.step_inputs import StepInputs
    from generators.exchange.config import RowsConfig
    from generators.kinds.sources import ResolvedTexts

T = TypeVar("T")


class ExternalInputs:
    """What an experiment takes from outside the artifact root, found at its first use.

    Args:
        experiment: the experiment.
        root: the artifact root, in which `dump.store` may be a name.
    """

    def __init__(self, experiment: Experiment, root: ArtifactRoot | None = None) -> None:
        self.experiment = experiment
        self._root = root

    def forget_digests(self) -> None:
        """Have the files of this machine digested anew where they are asked for next.

        What a hub holds under a commit does not change, and a model compares its own files.
        """
        local = ["dump_digests", "relation_digests"]
        if self.experiment.data is not None and self.data_folder.exists():
            local += ["data_digests", "labels_digest", "own_digests", "own_messages_digest"]
        for name in local:
            self.__dict__.pop(name, None)
        if "text_sources" in self.__dict__:
            from generators.kinds.sources import resolve_texts

            self.text_sources = {
                name: resolve_texts(texts.source, texts.endings)
                if "files" in texts.identity
                else texts
                for name, texts in self.text_sources.items()
            }

    def paths(self, external: Mapping[str, Any]) -> list[Path]:
        """Return the files of this machine that a step reads from outside.

        Args:
            external: the digests in its identity.
        """
        found = list(self.relation_files.values()) if "relations" in external else []
        if "shift" in external and self.shift_model is not None:
            found += self.shift_model.paths()
        if "weights" in external:
            return found + self.model.paths()
        if external and self.experiment.data is not None and self.data_folder.exists():
            found += self._data_files()
        for texts in self.text_sources.values():
            found += texts.files() if "files" in texts.identity else []
        return found

    def _data_files(self) -> list[Path]:
        from generators.exchange.latentqa_files import FILES
        from generators.exchange.row_entries import conversation_files

        section = require_section(self.experiment, "data", self.experiment.data)
        if section.format == "conversations":
            return list(conversation_files(self.data_folder).values())
        return [self.data_folder / name for name in FILES]

    @cached_property
    def model(self) -> ModelFiles:
        """The target's files.

        Raises:
            ModelError: the reference leads to no model.
        """
        from activation_store.model_files.files import resolve_model

        dump = self.experiment.dump
        return resolve_model(
            dump.model,
            dump.adapter,
            template=dump.template,
            trust_remote_code=dump.trust_remote_code,
        )

    @cached_property
    def store(self) -> Path | None:
        """Folder of the finished store that takes the dump's place; None without one.

        Raises:
            RefError: `dump.store` names nothing.
        """
        from activation_store.layout.arrays import PLAN_FILE

        named = self.experiment.dump.store
        if named is None:
            return None
        path = Path(named).expanduser()
        for folder in (path, path / DATA):
            if (folder / PLAN_FILE).is_file():
                return folder
        if self._root is None:
            return path
        return Refs(self._root).resolve(named, kind="dump").data

    @cached_property
    def dump_digests(self) -> dict[str, str]:
        """What a dump comes from: the target, and the finished store that takes its place."""
        from activation_store.layout.root_record import finished_root

        if self.store is None:
            return self.model_digests
        try:
            return {**self.model_digests, "store": finished_root(self.store)}
        except DamagedError as error:
            raise StoreError(
                f"{error} It is the store named in dump.store: fetch it or dump it again."
            ) from error

    @cached_property
    def model_digests(self) -> dict[str, str]:
        """What the target is: digests of weights, configuration, tokenizer, template, adapter."""
        return self.model.digests()

    @cached_property
    def relation_files(self) -> dict[str, Path]:
        """Files of the relations of `tasks`, by the name of their task.

        Raises:
            DataError: a path leads to no such file.
        """
        from generators.kinds.relation_files import find_relation_files

        section = self.experiment.tasks
        return {} if section is None else find_relation_files(section.relations, "tasks.relations")

    @cached_property
    def relation_digests(self) -> dict[str, str]:
        """Digests of these files, by the name of their task."""
        return {name: sha256_file(path) for name, path in self.relation_files.items()}

    @cached_property
    def shift_model(self) -> ModelFiles | None:
        """Files of the other model of `tasks.shift`; None without one.

        Raises:
            ModelError: the reference leads to no model.
        """
        from activation_store.model_files.files import resolve_model

        shift = None if self.experiment.tasks is None else self.experiment.tasks.shift
        if shift is None:
            return None
        return resolve_model(shift.model or self.experiment.dump.model, shift.adapter)

    @cached_property
    def needs_llm(self) -> bool:
        """Whether any row is written by an LLM.

        Raises:
            ConfigError: an unknown kind.
        """
        from generators.making.externals import needs_llm

        section = self.experiment.generate
        if section is None:
            return False
        return self.experiment.data is not None or needs_llm(section.conversations)

    @cached_property
    def earlier(self) -> tuple[str, ...]:
        """Places of the earlier versions that `generate.earlier` names.

        Raises:
            RefError: one is neither a path nor a REF of the artifact root.
        """
        section = self.experiment.generate
        named = () if section is None else section.earlier
        if self._root is None:
            return named
        return tuple(map(self._earlier_version, named))

    def _earlier_version(self, name: str) -> str:
        assert self._root is not None
        if Path(name).expanduser().exists():
            return name
        try:
            return str(Refs(self._root).resolve(name, kind="conversations").checked().data)
        except RefError as error:
            raise RefError(f"generate.earlier: {error}") from error

    @cached_property
    def text_sources(self) -> Mapping[str, ResolvedTexts]:
        """The texts of each kind that reads any, and what they are.

        Raises:
            DataError: a source is not there.
        """
        from generators.making.drawn import resolve_sources

        section = self.experiment.generate
        return {} if section is None else resolve_sources(section.conversations)

    @cached_property
    def data_folder(self) -> Path:
        """Folder of the published files."""
        section = require_section(self.experiment, "data", self.experiment.data)
        return Path(section.path).expanduser()

    @cached_property
    def data_digests(self) -> dict[str, str]:
        """Digests of the published files, by name.

        Raises:
            DataError: the folder or a file that is needed is missing.
        """
        from generators.exchange.importing import source_digests

        return source_digests(self.data_folder)

    @cached_property
    def labels_digest(self) -> str:
        """Digest of the labels that have questions: all that conversations take from qa.json.

        Raises:
            DataError: the file is missing or malformed.
        """
        from generators.exchange.latentqa_files import read_questions_by_label

        entries, _ = read_questions_by_label(self.data_folder)
        return digest(sorted(entry.label for entry in entries))

    @property
    def _rows(self) -> RowsConfig | None:
        return None if self.experiment.data is None else self.experiment.data.rows

    @cached_property
    def own_digests(self) -> dict[str, str]:
        """Digests of the files of conversations, by name.

        Raises:
            DataError: there is none.
        """
        from generators.exchange.row_entries import own_digests

        return own_digests(self.data_folder, self._rows)

    @cached_property
    def own_messages_digest(self) -> str:
        """Digest of everything but the questions in these files.

        Raises:
            DataError: a file cannot be read.
        """
        from generators.exchange.conversation_files import messages_digest

        return messages_digest(self.data_folder, self._rows)


def require_section(experiment: Experiment, name: str, section: T | None) -> T:
    """Return a section of an experiment that a step needs.

    Raises:
        ConfigError: it is null.
    """
    if section is None:
        raise ConfigError(f"{experiment.experiment}: has no section {name}.")
    return section


def capture_config(experiment: Experiment) -> CaptureConfig:
    """Return what decides a dump, of a section that also says where things are."""
    return CaptureConfig.model_validate(plain(experiment.dump, CaptureConfig))


def model_location(experiment: Experiment) -> dict[str, Any]:
    """Return where the target was, for the record of a step that runs it."""
    return {"model": experiment.dump.model, "adapter": experiment.dump.adapter}


@dataclass(frozen=True, kw_only=True, slots=True)
class StepCall:
    """One execution of one step."""

    experiment: Experiment
    """The whole experiment; a step reads its own section and `runtime`."""
    outside: ExternalInputs
    """Model files and source data."""
    root: Path
    """The artifact root; replies of LLMs are kept there for all steps and runs."""
    inputs: Mapping[str, Artifact]
    """The step's inputs by role."""
    out: Path
    """Folder of the output; empty, unless the step resumes from an earlier attempt's output."""
    work: Path
    """Scratch that outlives a kill and is removed on completion."""
    progress: Progress
    """Told how far the step is."""
    say: Callable[[str], None]
    """Prints a line for the user."""
    finished: tuple[Artifact, ...]
    """Outputs of the steps that this run has finished."""
    command: str
    """The command line that makes this run again."""
    pool: TaskPool
    """Runs pieces of the step side by side."""

    def data(self, role: str) -> Path:
        """Return the output folder of the input `role`."""
        return self.inputs[role].data

    def decoder_inputs(self) -> StepInputs:
        """Collect tables, target and store; no store where activations are computed on the fly."""
        from decoder.sources.step_inputs import StepInputs  # loads torch

        return StepInputs(
            conversations=self.data("conversations"),
            questions=self.data("questions"),
            store=self.data("dump") if "dump" in self.inputs else None,
            model=self.outside.model,
            capture=capture_config(self.experiment),
        )


SizeEstimator = Callable[[Experiment, ExternalInputs, Mapping[str, Path], bool], dict[str, int]]
"""Returns sizes in bytes by name, from the experiment, what it takes from outside, the folders of
the inputs by role, and whether models may be run on a sample for it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """A step; its name is the kind of its artifacts."""

    name: str
    version: int
    """Raised where the same config gives another output than before."""
    entry: str
    """Module of the function behind the step; what it imports is the step's source code."""
    run: Callable[[StepCall], StepResult]
    """Makes the output; a DamagedError says that an input's bytes are not the committed ones, and
    that input is then recomputed."""
    config: Callable[[Experiment], dict[str, Any]]
    """Every setting that decides the output."""
    inputs: Mapping[str, str]
    """Role of each input to the step that makes it."""
    external: Callable[[ExternalInputs], dict[str, Any]]
    """Digests of what comes from outside."""
    locations: Callable[[Experiment], dict[str, Any]] = lambda experiment: {}
    """Where what comes from outside was: for the record, never hashed."""
    size: SizeEstimator | None = None
    """Tells a plan the size of the output; None where nothing but an earlier one can."""
    resumes_output: bool = False
    """Whether an attempt goes on from the output that a killed one left; else that is removed."""
    reads_all: bool = False
    """Whether it opens the outputs of all finished steps, its inputs or not."""
    listed: bool = True
    """Whether the step stands among those of `run --json`."""
