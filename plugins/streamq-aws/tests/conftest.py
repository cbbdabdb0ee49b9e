"""The emulator for the tests, started here and stopped here, and nobody's real credentials."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from streamq_aws.embedded import Ministack


@pytest.fixture(scope="session")
def aws() -> Iterator[Ministack]:
    """Return an emulator that all tests share."""
    with Ministack() as running:
        yield running


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, aws: Ministack) -> None:
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    for name, value in aws.environment.items():
        monkeypatch.setenv(name, value)
