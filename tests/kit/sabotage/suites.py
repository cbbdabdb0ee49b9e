"""Defines one suite for each sabotaged driver; a run of this file has to fail.

``test_sabotage.py`` runs it and compares the checks that failed with those that each driver names.
"""

from __future__ import annotations

import gc
from types import ModuleType

import pytest

from . import (
    declaring,
    describing,
    expiring,
    faults,
    fencing,
    lifecycle,
    outliving,
    pages,
    racing,
    reading,
    remembering,
    storing,
    storing_many,
    waiting,
)
from .server import SoundQueue, suite_of
from .unfenced import UNFENCED
from .unfenced import suite_of as suite_of_unfenced

_MODULES = (
    storing,
    storing_many,
    fencing,
    reading,
    waiting,
    describing,
    expiring,
    lifecycle,
    faults,
    declaring,
    pages,
    remembering,
    outliving,
    racing,
)


def _queues(module: ModuleType) -> list[type[SoundQueue]]:
    return [
        found
        for found in vars(module).values()
        if isinstance(found, type)
        and issubclass(found, SoundQueue)
        and found.__module__ == module.__name__
        and not found.__name__.startswith("_")
    ]


_SABOTAGED = {queue.__name__: queue for module in _MODULES for queue in _queues(module)}

CAUGHT_BY = {
    **{name: queue.caught_by for name, queue in _SABOTAGED.items()},
    **{name: queue.caught_by for name, queue in UNFENCED.items()},
}
"""Every queue with a fault, by name, and the checks that catch it."""

_ALL: list[type[SoundQueue]] = [SoundQueue, *_SABOTAGED.values()]
for _suite in (*map(suite_of, _ALL), *map(suite_of_unfenced, UNFENCED.values())):
    globals()[_suite.__name__] = _suite


@pytest.fixture(scope="class", autouse=True)
def _frozen() -> None:
    """Exclude the objects that pytest keeps of thousands of checks from garbage collection.

    One check for leaks runs the collector, which would take as long as a third of the checks.
    """
    gc.collect()
    gc.freeze()
