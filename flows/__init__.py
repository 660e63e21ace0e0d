"""Prefect flows over sessions; as little logic as possible.

Prefect reads its settings from the environment when it is first imported, so they are set here,
before any module of this package imports it, and never over what a person has set: no telemetry,
no promotion, time for the embedded server to start on a loaded machine, and what tomoseg logs in
the runs' logs.
"""

import os

from tomoseg.compute.monitoring.logs import is_json

QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_ENABLED": "true",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
    "PREFECT_WORKER_WEBSERVER_HOST": "127.0.0.1",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "tomoseg",
    # What is logged outside of a run belongs to none.
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
}

if is_json():
    # From its first line on, before a process configures its logs.
    QUIET |= {
        "PREFECT_LOGGING_FORMATTERS_JSON_CLASS": "tomoseg.compute.monitoring.logs.JsonFormatter",
        "PREFECT_LOGGING_HANDLERS_CONSOLE_FORMATTER": "json",
        "PREFECT_LOGGING_HANDLERS_DEBUG_FORMATTER": "json",
    }

for _name, _value in QUIET.items():
    os.environ.setdefault(_name, _value)
