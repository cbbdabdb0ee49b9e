"""Real servers in subprocesses of our own, for demos, tests and benchmarks: no containers.

A driver that can bring a small server of its own subclasses :class:`DevServer` and returns it from
:meth:`streamq.driver.Driver.embedded`.
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
