"""The contract of drivers on Amazon's own services, if the environment allows it."""

from __future__ import annotations

import os
import uuid
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from streamq.devserver import free_port
from streamq.testing import BackendHarness, DriverSuite
from streamq_s3sns import S3SnsDriver, S3SnsSettings


class RealHarness(BackendHarness):
    """The account and the bucket in the environment."""

    driver = S3SnsDriver
    patience_seconds = 30.0

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._prefix = f"streamq-test-{uuid.uuid4().hex[:12]}"

    @property
    def label(self) -> str:
        """Name the account."""
        return "s3sns (a real account)"

    def settings(self) -> S3SnsSettings:
        """Return settings with a prefix of the test's own, by which remains can be found."""
        return S3SnsSettings(prefix=self._prefix)

    async def break_connections(self) -> None:
        """Skip: no proxy stands in front of Amazon."""
        pytest.skip("no proxy in front of a real account")

    def hang(self) -> AbstractAsyncContextManager[None]:
        """Skip: Amazon cannot be made to hang."""
        pytest.skip("a real account cannot be made to hang")

    async def restart(self) -> None:
        """Skip: Amazon cannot be restarted."""
        pytest.skip("a real account cannot be restarted")

    def unreachable(self) -> S3SnsSettings:
        """Return settings for a port where nothing listens."""
        url = f"http://127.0.0.1:{free_port()}"
        return S3SnsSettings(prefix=self._prefix, endpoint_url=url)


if os.environ.get("STREAMQ_TEST_AWS") == "1" and os.environ.get("STREAMQ_S3SNS_BUCKET"):

    class TestRealAccount(DriverSuite):
        """Amazon's own services; the bucket's lifecycle rule removes the remains."""

        @pytest.fixture
        def real_account(self) -> None:
            """Keep the environment as it is."""

        @pytest.fixture
        def harness(self, tmp_path: Path, real_account: None) -> RealHarness:
            """Return the harness."""
            return RealHarness(tmp_path)

else:

    def test_real_account() -> None:
        """Only Amazon's own services prove what emulators only imitate."""
        pytest.skip("STREAMQ_TEST_AWS is not 1, or no STREAMQ_S3SNS_BUCKET: no real account")
