"""Small folders in the form of LatentQA's published files, for tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FIELDS = {
    "control": ("control_user",),
    "stimulus": ("control_user", "control_model", "stimulus_user"),
    "stimulus_completion": ("control_user", "control_model", "stimulus_user", "stimulus_model"),
    "system": ("system", "stimulus_user"),
}


def row(view: str, label: str, control: str | None = None, **changed: Any) -> dict[str, Any]:
    """Make a row of a view file.

    `control` is the control's text, by default made from the label.
    """
    fields = FIELDS[view]
    texts = {name: f"{name} of {label}" for name in fields}
    texts[fields[0]] = control or f"control of {label}"
    return texts | {"label": label} | changed


def qa(*labels: str) -> dict[str, Any]:
    """Two questions for each label."""
    return {
        label: [[f"What about {label}?", f"It is {label}."], ["And then?", f"{label} goes on."]]
        for label in labels
    }


def write_folder(folder: Path, **files: Any) -> Path:
    """Write each value as `NAME.json`, text and bytes as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        if isinstance(value, str):
            value = value.encode()
        if not isinstance(value, bytes):
            value = json.dumps(value, indent=1, ensure_ascii=False).encode()
        (folder / f"{name}.json").write_bytes(value)
    return folder


def published(folder: Path, *, labels: int = 12) -> Path:
    """Make a sound folder: personas in every view.

    Goals and passages in one, an orphan in qa.json.
    """
    personas = [f"persona-job-{i}" for i in range(labels)]
    goals = [f"goal-emotion-{i}" for i in range(labels)]
    passages = [f"sqa-eval-{i}" for i in range(labels)]
    return write_folder(
        folder,
        qa=qa(passages[0], "persona-job-orphan", *personas, *goals, *passages[1:]),
        control=[row("control", label) for label in (*passages, *personas)],
        stimulus=[row("stimulus", label) for label in (*goals, *personas)],
        stimulus_completion=[row("stimulus_completion", label) for label in personas],
        system=[row("system", label) for label in personas],
    )
