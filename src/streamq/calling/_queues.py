"""Examines a queue as a whole: what its class has to have, before it is used.

Design: docs/design/contract.md.
"""

from __future__ import annotations

import math

from streamq._capabilities import Capabilities, LatencyClass
from streamq._errors import DriverError
from streamq.driver import ChunkQueue, Home

from ._breach import breach, shown

_PROMISED = "_streamq_promised"


def check_queue(queue: ChunkQueue, *, driver: str = "") -> None:
    """Refuse a queue that lacks what the contract demands, or that promises other things by now.

    Args:
        queue: What is to be used as a queue.
        driver: Name of the driver that opened it, if it was not given by the caller.

    Raises:
        DriverError: It cannot be used.
    """
    if not isinstance(queue, ChunkQueue):
        what = f"{shown(queue)} is not a ChunkQueue"
        raise _error(f"Driver.open() returned {what}" if driver else what, "Driver.open", driver)
    backend = getattr(queue, "backend", None)
    if not isinstance(backend, str) or not backend:
        what = f"{type(queue).__name__}.backend is {shown(backend)}, not the name of a backend"
        raise _error(what, "ChunkQueue.backend", driver)
    if not isinstance(getattr(queue, "home", None), Home):
        what = f"{type(queue).__name__}.__new__ does not call that of ChunkQueue"
        raise _error(what, "ChunkQueue.home", backend)
    hidden = queue.hidden_seconds
    if not isinstance(hidden, (int, float)) or not 0 <= hidden < math.inf:
        what = f"hidden_seconds is {shown(hidden)}, not a number of seconds"
        raise _error(what, "ChunkQueue.hidden_seconds", backend)
    capabilities = getattr(queue, "capabilities", None)
    if (problem := capabilities_problem(capabilities)) is not None:
        raise _error(problem, "ChunkQueue.capabilities", backend)
    assert isinstance(capabilities, Capabilities)
    before: Capabilities = vars(queue).setdefault(_PROMISED, capabilities)
    if before != capabilities:
        changed = [
            f"{name}={now} after {name}={before.to_dict()[name]}"
            for name, now in capabilities.to_dict().items()
            if now != before.to_dict()[name]
        ]
        what = f"an open queue promises {', '.join(changed)}"
        raise _error(what, "ChunkQueue.capabilities", backend)


def capabilities_problem(capabilities: object) -> str | None:
    """Return what is wrong with capabilities, or ``None``."""
    if not isinstance(capabilities, Capabilities):
        return f"capabilities is {shown(capabilities)}, not Capabilities"
    for name in Capabilities.flags():
        if not isinstance(getattr(capabilities, name), bool):
            return f"capabilities.{name} is {shown(getattr(capabilities, name))}, not a bool"
    size = capabilities.max_record_bytes
    if not isinstance(size, int) or isinstance(size, bool) or size <= 0:
        return f"capabilities.max_record_bytes is {shown(size)}, not a number of bytes"
    if not isinstance(capabilities.latency, LatencyClass):
        return f"capabilities.latency is {shown(capabilities.latency)}, not a LatencyClass"
    return None


def _error(what: str, see: str, backend: str) -> DriverError:
    return breach(what, see, backend=backend or "unknown")
