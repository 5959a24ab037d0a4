"""`latentqa setup`: what is fetched once and kept."""

from __future__ import annotations

from typing import Annotated

import typer

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
            help="Also make the copies that load in a second (680 MB in the cache, a minute).",
        ),
    ] = False,
) -> None:
    """Fetch the embedded model's weights (98 MB), alone, and check their digest."""
    from activation_store.target import embedded_model as weights

    path = weights.setup()
    typer.echo(str(path))
    if convert:
        from activation_store.target.gguf import convert as to_folder
        from activation_store.target.gguf import served

        typer.echo(str(to_folder(path)))
        typer.echo(str(served(path)))
