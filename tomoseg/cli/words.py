"""What the commands have in common: exit codes and how values are said."""

import logging

import typer

from tomoseg.compute.monitoring.logs import is_json

DONE, SOME_FAILED, WRONG_REQUEST = 0, 1, 2


def number(value: float | int | None) -> str:
    """Return a score for people; a dash where there is none."""
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.3f}"


def complain(text: str) -> None:
    """Say what went wrong on standard error, as a log line where those are for machines."""
    if is_json():
        logging.getLogger(__name__).error("%s", text)
    else:
        typer.echo(text, err=True)
