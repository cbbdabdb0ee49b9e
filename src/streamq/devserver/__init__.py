"""Runs real servers in subprocesses, for demos, tests and benchmarks, without containers.

A driver that comes with a small server subclasses :class:`DevServer` and returns it from
:meth:`streamq.driver.Driver.embedded`.

* ``_process``: starts one server process on a free port, waits until it serves, and stops it.
* ``_guardian``: kills a process group when this process has ended.
* ``_temporal``: the Temporal dev server.

Design: docs/design/testing.md.
"""

from ._guardian import Guardian
from ._process import READY_POLL_SECONDS, DevServer, free_port
from ._temporal import FAST, TemporalDevServer, find_temporal

__all__ = [
    "FAST",
    "READY_POLL_SECONDS",
    "DevServer",
    "Guardian",
    "TemporalDevServer",
    "find_temporal",
    "free_port",
]
