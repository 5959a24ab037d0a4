"""`latentqa setup`: fetch once what the package does not bring."""

from __future__ import annotations

from typing import Annotated

import typer

from latentqa.terminal.options import JsonOption
from latentqa.terminal.printing import report

app = typer.Typer(help="Fetch what is not installed with the package.", no_args_is_help=True)


@app.callback()
def _family() -> None:
    """Fetch what is not installed with the package."""


@app.command()
def embedded(
    convert: Annotated[
        bool,
        typer.Option(
            "--convert",
            help="Also make copies that load in a second (680 MB in the cache, takes a minute).",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Download the embedded model's weights (98 MB) and check their digest."""
    from activation_store.model_files import embedded_model as weights

    paths = {"weights": weights.setup()}
    if convert:
        from activation_store.model_files.gguf import convert as to_folder
        from activation_store.model_files.gguf import served

        paths["model"] = to_folder(paths["weights"])
        paths["served"] = served(paths["weights"])
    report(as_json, {name: str(path) for name, path in paths.items()}, *paths.values())
