"""Keeps what streamq knows of the running workflow run, for as long as its worker caches the run.

Not in the workflow's own object, whose class may have ``__slots__``.
Design: docs/design/temporal-producing.md.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary


@dataclass(slots=True)
class RunState:
    """State of one run; a replay restores it.

    Attributes:
        first_run_id: First run of its chain, once that is settled.
        problem: Why Temporal did not state that run, if it was asked in vain.
        calls: Number of the run's detached calls on each topic.
    """

    first_run_id: str | None = None
    problem: str | None = None
    calls: dict[str, int] = field(default_factory=dict)


# Every workflow run is an event loop of its own.
_states: WeakKeyDictionary[asyncio.AbstractEventLoop, RunState] = WeakKeyDictionary()


def run_state() -> RunState:
    """Return the state of the running run."""
    loop = asyncio.get_running_loop()
    state = _states.get(loop)
    if state is None:
        state = _states[loop] = RunState()
    return state
