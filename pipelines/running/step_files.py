"""The files that a step reads: compared with what its key says, before and after it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from core.errors import DataError
from core.files import file_states, find_replaced
from pipelines.artifacts.artifact import Artifact, data_files
from pipelines.artifacts.cache_key import StepIdentity, differences
from pipelines.experiment.config import Experiment
from pipelines.steps.shared.step import ExternalInputs, Step


@dataclass
class StepFiles:
    """What a step reads from the artifact root and from outside.

    A file that is exchanged and put back while the step runs has the right bytes at both ends; the
    time of its last change tells. Stores are left out: their readers verify each shard.
    """

    step: Step
    experiment: Experiment
    """The experiment whose step it is."""
    outside: ExternalInputs
    """Files from outside the root."""
    identity: StepIdentity
    """Of the step."""
    artifacts: Sequence[Artifact]
    """What it reads from the root."""

    def __post_init__(self) -> None:
        """Note the state of all files before the step opens any."""
        paths = [
            path
            for artifact in self.artifacts
            if artifact.store_root is None
            for path in data_files(artifact.data).values()
        ]
        self._states = file_states([*paths, *self.outside.paths(self.identity.external)])

    def check_artifacts(self) -> None:
        """Compare the bytes of the artifacts with their digests, which the key holds.

        Raises:
            DamagedError: one is not as it was committed.
        """
        for artifact in self.artifacts:
            artifact.check_bytes()

    def check_outside(self) -> None:
        """Compare the files from outside with the identity.

        Raises:
            ModelError: the target, or another model, has changed.
            DataError: another file has; some count among the settings by what they say.
        """
        external = self.identity.external
        if "weights" in external:
            self.outside.model.check_unchanged()
        if "shift" in external and self.outside.shift_model is not None:
            self.outside.shift_model.check_unchanged()
        self.outside.forget_digests()
        before = {"config": self.identity.config, "external": external}
        now = {
            "config": self.step.config(self.experiment),
            "external": self.step.external(self.outside),
        }
        if changed := differences(before, now):
            self._refuse(changed[0].field)

    def check_after(self) -> None:
        """Compare all of them once more, and whether one was replaced and put back meanwhile.

        Raises:
            LatentQAError: as `check_artifacts` and `check_outside`.
        """
        self.check_outside()
        self.check_artifacts()
        if (path := find_replaced(self._states)) is not None:
            self._refuse(f"{path} was replaced and put back")

    def _refuse(self, what: str) -> None:
        raise DataError(
            f"{self.step.name}: an input changed on disk during the run ({what}). Run again; the "
            "results then belong to the files that are there."
        )
