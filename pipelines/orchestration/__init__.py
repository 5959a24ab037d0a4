"""Runs that a Prefect server shows: tasks, artifacts, states. Only flows.py imports prefect too.

Importing this package sets defaults for Prefect, which has to come before prefect is imported; a
setting of the user's stands.
"""

import os

DEFAULTS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    # our own lines are what a person sees; the API still gets every log line
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_INTERNAL_LEVEL": "CRITICAL",
    # a server that is gone holds a run up for seconds, not for a minute a call
    "PREFECT_CLIENT_MAX_RETRIES": "1",
}

for _name, _value in DEFAULTS.items():
    os.environ.setdefault(_name, _value)
