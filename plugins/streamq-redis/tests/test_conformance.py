"""The contract of drivers, on Valkey and on genuine Redis."""

from __future__ import annotations

from streamq.testing import DriverSuite


class TestRedis(DriverSuite):
    """The fixture ``open_queue`` of this directory's conftest is the one under test."""

    open_queue = None  # type: ignore[assignment]  # the suite's placeholder must not hide it
