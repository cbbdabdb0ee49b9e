"""Makes requests about one bucket: limited in number and time, with streamq's errors only.

Design: docs/design/s3sns.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

from streamq_aws import aws_errors, error_code, http_status
from streamq_s3sns._errors import client_errors
from streamq_s3sns._settings import S3SnsSettings

from ._server_clock import ServerClock

_GONE = 404
_CREATING = frozenset({"put_object", "create_multipart_upload", "copy_object"})
_LOST_RACE = frozenset({409, 412})


class Bucket:
    """One bucket, through one client; nothing is remembered or retried.

    Args:
        client: An open client of S3.
        settings: Name the bucket, and the number of the client's connections. A call that waits for
            a connection does not use up its time limit: S3 is not slow because this process keeps
            it busy.
        patience_seconds: Time limit of one request. The client's own limits apply to silence on the
            connection, and not to a request that is never accepted.
    """

    page_keys = 1_000
    """Number of keys that a listing requests at a time; S3 returns no more."""

    def __init__(self, client: Any, settings: S3SnsSettings, *, patience_seconds: float) -> None:
        self.client = client
        self.name = settings.bucket
        self.clock = ServerClock()
        self._encryption = settings.encryption_arguments
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
            missing_is_none: Return ``None`` if the key or upload does not exist.
            lost_race_is_none: Return ``None`` if a condition is not met.
            arguments: Arguments of the method, without the bucket.
        """
        async with self._turns:
            return await self._call(operation, missing_is_none, lost_race_is_none, arguments)

    @contextlib.asynccontextmanager
    async def opened(self, key: str) -> AsyncIterator[Any]:
        """Get an object and keep its body open for reading; ``None`` if it does not exist."""
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
        if operation in _CREATING:
            arguments |= self._encryption
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
        """Return S3's answer with a page of keys after a key, in ascending order."""
        place: dict[str, Any] = {"StartAfter": after} if after else {}
        return await self.call(
            "list_objects_v2", Prefix=prefix, MaxKeys=count or self.page_keys, **place
        )

    async def read(self, body: Any, key: str, size: int | None = None) -> bytes:
        """Return the rest of a body, or at most ``size`` bytes of it."""
        with self.errors(key):
            async with asyncio.timeout(self._patience):
                data: bytes = await (body.read() if size is None else body.read(size))
                return data

    def errors(self, key: str) -> aws_errors:
        """Turn errors of the client into streamq's, with a key or a prefix in the message."""
        return client_errors(self.where(key))

    def where(self, key: str) -> str:
        """Return the address of a key, for messages."""
        return f"s3://{self.name}/{key}"
