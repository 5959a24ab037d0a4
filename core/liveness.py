"""Whether the process that left something behind still runs."""

from __future__ import annotations

import os
import platform


def machine_name() -> str:
    """Name the machine on which a process's number means this process.

    Containers on the host's network share its name, but number their processes by themselves: the
    PID namespace (pid_namespaces(7)) tells them apart where there is one.
    """
    try:
        return f"{platform.node()}/{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:  # a system without such namespaces
        return platform.node()


def is_running(pid: int) -> bool:
    """Tell whether a process of this machine runs, whoever it belongs to."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True
