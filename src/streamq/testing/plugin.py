"""The pytest plugin of the kit: virtual time for suites that ask for it.

Enable it in the top ``conftest.py``::

    pytest_plugins = ["streamq.testing.plugin"]
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Mapping

import pytest

from ._checks import Checks
from ._virtual_time import VirtualTimeLoop


@pytest.hookimpl(wrapper=True, optionalhook=True)
def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> Generator[
    None,
    Mapping[str, type[asyncio.AbstractEventLoop]] | None,
    Mapping[str, object],
]:
    """Run the checks of a suite with ``virtual_time = True`` on a :class:`VirtualTimeLoop`."""
    others = yield
    suite = getattr(item, "cls", None)
    if suite is not None and issubclass(suite, Checks) and suite.virtual_time:
        return {"virtual time": VirtualTimeLoop}
    # pytest-asyncio takes an answer from everybody, once there is this hook at all.
    return others or {"asyncio": asyncio.new_event_loop}
