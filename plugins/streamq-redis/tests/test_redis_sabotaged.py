"""The faults that once passed the kit are caught in the Redis driver as well."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.kit.sabotaged_runs import failed_checks

from redis_sabotaged import SABOTAGED


@pytest.mark.full
@pytest.mark.timeout(300)
def test_faults_of_the_driver_are_caught(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """A kit proves nothing of a driver in which it does not find a fault that was put there."""
    source = Path(__file__).with_name("redis_sabotaged.py")
    checks = sorted({check for _, check in SABOTAGED.values()})
    failed = failed_checks(source, pytestconfig.rootpath, tmp_path, checks)
    assert sorted(failed) == sorted(SABOTAGED)
    for name, (_, check) in SABOTAGED.items():
        assert check in failed[name], f"{name} is not caught"
