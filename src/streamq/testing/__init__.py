"""Tools for testing drivers: the conformance suite that a driver's own tests subclass.

Needs ``pytest`` and ``pytest-asyncio`` in auto mode; nothing else in streamq imports them.
"""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite(
    *(f"streamq.testing.{name}" for name in ("_driver_suite", "_reading", "_streams", "_waiting"))
)

from ._driver_suite import DriverSuite  # noqa: E402 - after asserts are registered for rewriting
from ._harness import OpenQueue, new_stream, queue_factory  # noqa: E402

__all__ = ["DriverSuite", "OpenQueue", "new_stream", "queue_factory"]
