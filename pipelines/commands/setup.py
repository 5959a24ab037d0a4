"""`latentqa setup`: what is fetched once and kept."""

from __future__ import annotations

import typer

app = typer.Typer(help="Fetch what is not installed with the package.", no_args_is_help=True)


@app.callback()
def _family() -> None:
    """Fetch what is not installed with the package."""


@app.command()
def embedded() -> None:
    """Fetch the embedded model's weights (98 MB), alone, and check their digest."""
    from activation_store import embedded as weights

    typer.echo(str(weights.setup()))
