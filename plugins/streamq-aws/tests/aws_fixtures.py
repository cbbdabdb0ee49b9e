"""Makes the fixtures that the tests of AWS drivers share, for their ``conftest.py``.

A conftest assigns what these functions return to the name in each docstring.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from streamq_aws.embedded import Ministack


def emulator_fixture() -> Any:
    """Return the fixture ``aws``: an emulator that all tests share."""

    @pytest.fixture(scope="session")
    def aws() -> Iterator[Ministack]:
        """Return an emulator that all tests share."""
        with Ministack() as running:
            yield running

    return aws


def authority_fixture() -> Any:
    """Return the fixture ``authority``: one certificate authority for all clients.

    Nothing here uses TLS. By default every client reads a hundred authorities, which is slow.
    """

    @pytest.fixture(scope="session")
    def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
        """Return the file of a certificate authority."""
        path = tmp_path_factory.mktemp("authority") / "ca.pem"
        trustme.CA().cert_pem.write_to_path(path)
        return path

    return authority


def environment_fixture() -> Any:
    """Return an autouse fixture whose variables lead AWS clients to ``aws`` and nowhere else.

    A test that asks for the fixture ``real_account`` keeps its environment.
    """

    @pytest.fixture(autouse=True)
    def environment(
        request: pytest.FixtureRequest,
        monkeypatch: pytest.MonkeyPatch,
        aws: Ministack,
        authority: Path,
    ) -> None:
        if "real_account" in request.fixturenames:
            return
        for name in ("AWS_PROFILE", "AWS_REGION", "AWS_SESSION_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("AWS_CA_BUNDLE", str(authority))
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
        for name, value in aws.environment.items():
            monkeypatch.setenv(name, value)

    return environment
