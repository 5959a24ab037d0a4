"""`latentqa publish`: a trained decoder with its model card, to a folder or the hub."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from core.errors import ConfigError
from latentqa.commands.options import DEFAULT_ROOT, REF_HELP, RootOption
from pipelines.artifacts.refs import Refs
from pipelines.artifacts.root import ArtifactRoot


def publish(
    decoder: Annotated[
        str, typer.Option("--decoder", metavar="REF", help=f"A trained decoder. {REF_HELP}")
    ],
    folder: Annotated[
        Path | None, typer.Option("--folder", metavar="DIR", help="Write it there; new or empty.")
    ] = None,
    repo: Annotated[
        str | None,
        typer.Option(
            "--repo",
            metavar="ORG/NAME",
            help="Upload it to that model repository; the token is taken from HF_TOKEN.",
        ),
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="Make a new repository private.")
    ] = False,
    base_model: Annotated[
        str | None,
        typer.Option(
            "--base-model",
            metavar="ORG/NAME",
            help="The target's repository on the hub (ORG/NAME@COMMIT), where it is not known.",
        ),
    ] = None,
    license_: Annotated[
        str | None,
        typer.Option("--license", help="The target's licence, where its own card has none."),
    ] = None,
    root: RootOption = DEFAULT_ROOT,
) -> None:
    """Publish a decoder: an ordinary peft adapter, latentqa.json, and a model card.

    The card holds the keys of data, store and decoder, the settings, and what the newest evaluation
    measured, with intervals.
    """
    from pipelines.reports.publish.decoder import newest_evaluation, push, write_folder
    from pipelines.reports.publish.target import describe_target

    if folder is None and repo is None:
        raise ConfigError("publish: got neither --folder nor --repo; expected at least one.")
    place = ArtifactRoot(root.expanduser())
    found = Refs(place).resolve_set(decoder)
    train = Refs(place).resolve(decoder, "train")
    evaluated = found.get("evaluate") or newest_evaluation(place, train)
    described = describe_target(train, base_model=base_model, licence=license_)
    with tempfile.TemporaryDirectory() as aside:
        target = folder or Path(aside) / "decoder"
        write_folder(target, train, evaluated, described)
        if folder is not None:
            typer.echo(f"{train.short} is in {folder}")
        if repo is not None:
            typer.echo(f"{train.short} is at {push(target, repo, private=private)}")
