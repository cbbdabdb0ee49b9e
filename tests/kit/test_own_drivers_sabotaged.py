"""The faults that once passed the kit are caught in streamq's own drivers as well."""

from __future__ import annotations

from pathlib import Path

import pytest

from .sabotage.own_drivers import SABOTAGED
from .sabotaged_runs import failed_checks

pytestmark = pytest.mark.full  # each fault is waited for


@pytest.fixture(scope="module")
def failed(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> dict[str, set[str]]:
    """Run the checks that have to fail on every sabotaged driver; return what failed."""
    source = Path(__file__).with_name("sabotage") / "own_drivers.py"
    checks = {check for _, _, check in SABOTAGED.values()}
    directory = tmp_path_factory.mktemp("own")
    return failed_checks(source, pytestconfig.rootpath, directory, sorted(checks))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", SABOTAGED)
def test_fault_of_our_own_driver_is_caught(name: str, failed: dict[str, set[str]]) -> None:
    """A kit proves nothing of a driver in which it does not find a fault that was put there."""
    _, _, check = SABOTAGED[name]
    assert check in failed[name]
