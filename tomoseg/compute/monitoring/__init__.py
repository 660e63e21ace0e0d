"""Logs and metrics of every process: ``dask worker --preload tomoseg.compute.monitoring``.

Dask's scheduler, workers and nannies load this module (``--preload``, ``--preload-nanny``) and
call :func:`dask_setup`; other entry points call :func:`begin`, and flow runs, whose process starts
another way, :func:`configure_logs`. Nothing happens at import.
"""

from __future__ import annotations

from typing import Any

from tomoseg.compute.monitoring.logs import configure_logs

__all__ = ["MODULE", "begin", "configure_logs", "dask_setup"]

MODULE = __name__
"""What Dask is told to load."""


def begin(*, is_verbose: bool = False) -> str | None:
    """Configure the logs of this process, and show its metrics if the environment says where.

    Returns
    -------
    Where they are shown.

    Raises
    ------
    RequestError
        If a variable of the environment is wrong.
    """
    configure_logs(is_verbose=is_verbose)
    from tomoseg.compute.monitoring.metrics import serve_metrics

    return serve_metrics()


def dask_setup(server: Any) -> None:
    """Configure the logs of a Dask process, and add to what its own HTTP server shows."""
    from distributed import Scheduler, Worker

    if isinstance(server, Worker):
        from tomoseg.compute.monitoring.metrics import show_disk

        configure_logs(worker=server.address)
        show_disk(server.local_directory)
    else:
        configure_logs()
    if isinstance(server, Scheduler):
        from tomoseg.compute.monitoring.spans import forget_spans
        from tomoseg.compute.monitoring.targets import add_targets

        add_targets(server)
        forget_spans(server)
