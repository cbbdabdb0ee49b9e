"""A bucket: every request to it is bounded in time and fails with streamq's errors only."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

from streamq_aws import aws_errors, error_code, http_status

from ._clock import ServerClock
from ._segment import BACKEND
from ._settings import S3SnsSettings

_GONE = 404
_LOST_RACE = frozenset({409, 412})


class Bucket:
    """One bucket as a client sees it; nothing is remembered or retried.

    Args:
        client: An open client of S3.
        settings: Which bucket, and how many connections the client has. Who waits for one of them
            waits its turn, which is no part of the time for a request: a bucket that is busy with
            us is not one that does not answer.
        patience_seconds: Longest time for one request. The client's own limits are about silence
            on the line, and say nothing of a request that is not taken.
    """

    page_keys = 1_000
    """How many keys a listing asks for at a time; S3 gives no more."""

    def __init__(self, client: Any, settings: S3SnsSettings, *, patience_seconds: float) -> None:
        self.client = client
        self.name = settings.bucket
        self.clock = ServerClock()
        self._patience = patience_seconds
        self._turns = asyncio.Semaphore(settings.max_connections)

    async def call(
        self,
        operation: str,
        *,
        missing_is_none: bool = False,
        lost_race_is_none: bool = False,
        **arguments: Any,
    ) -> Any:
        """Make a request and return its answer.

        Args:
            operation: Name of the client's method.
            missing_is_none: Return ``None`` if what it is about is not there.
            lost_race_is_none: Return ``None`` if a condition is not met.
            arguments: What the method takes beside the bucket.
        """
        async with self._turns:
            return await self._call(operation, missing_is_none, lost_race_is_none, arguments)

    @contextlib.asynccontextmanager
    async def opened(self, key: str) -> AsyncIterator[Any]:
        """Get an object whose body is going to be read now; ``None`` if it is not there."""
        async with self._turns:
            answer = await self._call("get_object", True, False, {"Key": key})
            try:
                yield answer
            finally:
                if answer is not None:
                    answer["Body"].close()

    async def _call(
        self,
        operation: str,
        missing_is_none: bool,
        lost_race_is_none: bool,
        arguments: dict[str, Any],
    ) -> Any:
        sent = time.time()
        with self.errors(arguments.get("Key") or arguments.get("Prefix", "")):
            try:
                async with asyncio.timeout(self._patience):
                    answer = await getattr(self.client, operation)(Bucket=self.name, **arguments)
            except Exception as exc:
                status = http_status(exc)
                if missing_is_none and status == _GONE and error_code(exc) != "NoSuchBucket":
                    return None
                if lost_race_is_none and status in _LOST_RACE:
                    return None
                raise
        self.clock.observe(answer["ResponseMetadata"]["HTTPHeaders"].get("date"), sent)
        return answer

    async def list(self, prefix: str, after: str = "", *, count: int | None = None) -> Any:
        """Return a page of keys, as S3 answers it: those behind one, in their order."""
        place: dict[str, Any] = {"StartAfter": after} if after else {}
        return await self.call(
            "list_objects_v2", Prefix=prefix, MaxKeys=count or self.page_keys, **place
        )

    async def read(self, body: Any, key: str, size: int | None = None) -> bytes:
        """Return what a body still has, or so many bytes of it."""
        with self.errors(key):
            async with asyncio.timeout(self._patience):
                data: bytes = await (body.read() if size is None else body.read(size))
                return data

    def errors(self, key: str) -> aws_errors:
        """Turn errors of the client into streamq's, which name a key or a prefix."""
        return aws_errors(BACKEND, about=self.where(key))

    def where(self, key: str) -> str:
        """Return the address of a key, for messages."""
        return f"s3://{self.name}/{key}"
