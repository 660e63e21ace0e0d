"""Log lines that say where they come from, for people or for machines.

``TOMOSEG_LOG=json`` makes every line of a process one JSON object, those of Dask and Prefect,
warnings and the traceback of what nobody caught too; ``text`` is for people.
``TOMOSEG_LOG_LEVEL`` is ``info`` unless set; ``debug`` has a line for each block. Without either,
warnings are told. Only entry points configure logs, never an import.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from dataclasses import asdict
from datetime import UTC, datetime
from types import TracebackType

from tomoseg.core.errors import RequestError
from tomoseg.core.events import here

KIND, LEVEL = "TOMOSEG_LOG", "TOMOSEG_LOG_LEVEL"
KINDS = ("text", "json")
LEVELS = ("debug", "info", "warning", "error")
SESSION_FLOWS = ("tomoseg arrivals", "<unknown>")
"""Flows whose runs are called as their session, and what Prefect's runner calls those it starts."""
ESCAPES = {code: f"\\x{code:02x}" for code in (*range(32), 127)}
"""A name with a line break in it must not look like a line of its own."""


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and the names that are known."""

    def __init__(self, *_templates: object, worker: str = "") -> None:
        # A configuration of logging gives every formatter templates, such as Prefect's does.
        super().__init__()
        self._worker = worker

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        names = {**asdict(here()), "worker": self._worker}
        names |= {key: name for key, name in _of_prefect(record).items() if not names[key]}
        values = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **{key: name for key, name in names.items() if name},
        }
        if record.exc_info:
            values["error"] = self.formatException(record.exc_info)
        return json.dumps(values)


class TextFormatter(logging.Formatter):
    """A line for people: time, level, logger, tomogram, stage and block, message."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(place)s%(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; a traceback follows on lines of its own."""
        place = here()
        names = [name for name in (place.tomogram, place.stage, place.block) if name]
        record.place = (f"[{' '.join(names)}] " if names else "").translate(ESCAPES)
        return super().format(record)

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the line without a traceback."""
        record.message = record.message.translate(ESCAPES)
        return super().formatMessage(record)


def _of_prefect(record: logging.LogRecord) -> dict[str, str]:
    """Return the run and the session of what Prefect says of a run, around the flow itself."""
    names = {"run": getattr(record, "flow_run_id", "")}
    if getattr(record, "flow_name", "") in SESSION_FLOWS:
        names["session"] = getattr(record, "flow_run_name", "")
    return names


def is_json() -> bool:
    """Tell whether this process logs for machines."""
    return os.environ.get(KIND, "").lower() == "json"


def log_environment() -> dict[str, str]:
    """Return the variables that let another process log as this one does."""
    return {name: os.environ[name] for name in (KIND, LEVEL) if os.environ.get(name)}


def configure_logs(*, worker: str = "", is_verbose: bool = False) -> None:
    """Let this process log as the environment asks; again is harmless.

    Parameters
    ----------
    worker
        Address of this Dask worker, told in every line.
    is_verbose
        Whether everything is told, whatever the environment says.

    Raises
    ------
    RequestError
        If a variable holds what is not known.
    """
    usual = "info" if os.environ.get(KIND) else "warning"
    level = "debug" if is_verbose else _chosen(LEVEL, LEVELS, usual)
    kind = _chosen(KIND, KINDS, "text")
    handler = logging.StreamHandler()
    root = logging.getLogger()
    if kind == "json":
        handler.setFormatter(JsonFormatter(worker=worker))
        for logger in (root, *_loggers()):
            if console := [one for one in logger.handlers if _is_console(one)]:
                logger.handlers = [one for one in logger.handlers if one not in console]
                logger.addHandler(handler)
        _hear_interpreter()
    else:
        handler.setFormatter(TextFormatter())
    if not root.handlers:
        root.addHandler(handler)
    logging.getLogger("tomoseg").setLevel(level.upper())


def _hear_interpreter() -> None:
    """Log warnings and what nobody caught, which Python would print line by line."""
    log = logging.getLogger(__name__)

    def uncaught(
        kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        if issubclass(kind, Exception):
            log.critical("nobody caught %s: %s", kind.__name__, error, exc_info=error)
        else:
            sys.__excepthook__(kind, error, trace)

    def uncaught_in_thread(told: threading.ExceptHookArgs) -> None:
        if told.exc_value is not None:
            uncaught(told.exc_type, told.exc_value, told.exc_traceback)

    logging.captureWarnings(True)
    sys.excepthook, threading.excepthook = uncaught, uncaught_in_thread


def _chosen(name: str, known: tuple[str, ...], usual: str) -> str:
    value = os.environ.get(name, "").lower() or usual
    if value not in known:
        raise RequestError(
            f"{name} is {value!r}, not one of {', '.join(known)}", remedy=f"Correct {name}."
        )
    return value


def _loggers() -> list[logging.Logger]:
    known = logging.root.manager.loggerDict.values()
    return [one for one in known if isinstance(one, logging.Logger)]


def _is_console(handler: logging.Handler) -> bool:
    """Tell whether a handler writes lines to this process's output (Prefect's own server: no)."""
    streams = (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
    return isinstance(handler, logging.StreamHandler) and handler.stream in streams
