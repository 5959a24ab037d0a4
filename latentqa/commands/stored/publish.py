"""`latentqa publish`: a trained decoder with its model card, to a folder or the hub."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from core.errors import ConfigError
from latentqa.api import open_refs
from latentqa.terminal.options import (
    DEFAULT_ROOT,
    DecoderArgument,
    JsonOption,
    PrivateOption,
    RepoOption,
    RootOption,
)
from latentqa.terminal.printing import report


def publish(
    decoder: DecoderArgument,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="New or empty folder to write to."),
    ] = None,
    repo: RepoOption = None,
    private: PrivateOption = False,
    base_model: Annotated[
        str | None,
        typer.Option(
            "--base-model",
            metavar="ORG/NAME",
            help="The target's repository on the hub (ORG/NAME@COMMIT), if it is not known.",
        ),
    ] = None,
    license_: Annotated[
        str | None,
        typer.Option(
            "--license",
            metavar="LICENCE",
            help="The target's licence, if its own card has none.",
        ),
    ] = None,
    root: RootOption = DEFAULT_ROOT,
    as_json: JsonOption = False,
) -> None:
    """Publish a decoder as a peft adapter with latentqa.json and a model card.

    The card has the keys of data, store and decoder, the settings, and the results of the newest
    evaluation with intervals.
    """
    from core.files import new_folder
    from pipelines.reports.publish.decoder import fill_folder, newest_evaluation
    from pipelines.reports.publish.hub import push_folder
    from pipelines.reports.publish.target import describe_target

    if out is None and repo is None:
        raise ConfigError("publish: got neither --out nor --repo; expected at least one.")
    refs = open_refs(root)
    train = refs.resolve(decoder, "train")
    evaluated = refs.resolve_set(decoder).get("evaluate") or newest_evaluation(refs.root, train)
    described = describe_target(train, base_model=base_model, licence=license_)
    # where the upload fails, no folder is left behind that a second try would find
    aside = tempfile.TemporaryDirectory() if out is None else new_folder(out.expanduser())
    with aside as name:
        folder = Path(name)
        fill_folder(folder, train, evaluated, described)
        address = None
        if repo is not None:
            message = "A decoder, its record and its card"
            address = push_folder(folder, repo, kind="model", private=private, message=message)
    places = [
        f"{train.short} is {where}"
        for where in (out and f"in {out}", address and f"at {address}")
        if where
    ]
    document = {"decoder": train.short, "out": None if out is None else str(out), "repo": address}
    report(as_json, document, *places)
