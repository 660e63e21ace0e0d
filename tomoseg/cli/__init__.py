"""The command line. Heavy imports stand inside the commands, so that ``--help`` answers at once.

A module holds a group of commands, and :data:`COMMANDS` names them all. Exit codes: 0 done, 1 some
tomograms failed, 2 the request was wrong.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated

import typer

from tomoseg.cli.exchange import export, import_
from tomoseg.cli.networks import evaluate, train
from tomoseg.cli.sessions import run, status, validate
from tomoseg.cli.tracing import sample, trace
from tomoseg.cli.volumes import info, simulate
from tomoseg.cli.words import SOME_FAILED, WRONG_REQUEST, complain
from tomoseg.compute.devices import share_heap
from tomoseg.compute.monitoring import configure_logs
from tomoseg.core.attempts import explaining
from tomoseg.core.errors import FormatError, ModelError, RequestError, TomosegError
from tomoseg.core.version import said_version

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Tomograms in; segmentations, traced filaments and particle coordinates out.",
    epilog="Exit codes: 0 done, 1 some tomograms failed, 2 the request was wrong.",
)


def main() -> None:
    """Run the command line; errors of ours become one message and an exit code."""
    # NumPy and others start threads where they are imported, which is later.
    share_heap()
    try:
        with explaining():
            app()
    except TomosegError as error:
        complain(f"error: {error}")
        is_request = isinstance(error, RequestError | FormatError | ModelError)
        sys.exit(WRONG_REQUEST if is_request else SOME_FAILED)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"tomoseg {said_version()}")
        raise typer.Exit


@app.callback()
def configure(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
) -> None:
    """Set up logging for all commands."""
    configure_logs(is_verbose=verbose)


# In the order of the help.
COMMANDS: dict[str, Callable[..., None]] = {
    "run": run,
    "validate": validate,
    "status": status,
    "info": info,
    "simulate": simulate,
    "train": train,
    "evaluate": evaluate,
    "trace": trace,
    "sample": sample,
    "export": export,
    "import": import_,
}
for name, command in COMMANDS.items():
    app.command(name)(command)
