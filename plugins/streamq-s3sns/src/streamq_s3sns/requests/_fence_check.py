"""Checks that the server refuses to overwrite: without that, nothing fences writers.

Design: docs/design/s3sns.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets

from streamq.driver import BackendError, ConfigurationError, StreamqError
from streamq_s3sns._errors import BACKEND, is_unsupported
from streamq_s3sns._naming import FENCE

from ._bucket import Bucket

_ATTEMPTS = 4


class FenceCheck:
    """Checks once that a bucket's server honours ``If-None-Match: *``.

    It stores an empty object twice, under a key of its own. With a segment the check could bring
    back a stream that is deleted at the same time.
    """

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._has_passed = False
        self._checking = asyncio.Lock()

    async def run(self, directory: str) -> None:
        """Check the server, unless it has passed before.

        Args:
            directory: Where to store the object.

        Raises:
            ConfigurationError: The server overwrites what exists, or takes no conditional writes,
                or takes none with the headers that this client sends.
        """
        if self._has_passed:
            return
        key = f"{directory}{FENCE}{secrets.token_hex(16)}"
        async with self._checking:
            if self._has_passed:
                return
            is_stored = is_refused = False
            for _ in range(_ATTEMPTS):
                is_accepted = await self._store(key)
                if is_stored:
                    is_refused = not is_accepted
                    break
                # If not accepted, S3 was busy with the key and stored nothing.
                is_stored = is_accepted
            # If it cannot be deleted, an empty object stays until the lifecycle rule removes it.
            with contextlib.suppress(StreamqError):
                await self._bucket.call("delete_object", Key=key)
            self._has_passed = is_refused
            if is_refused:
                return
        raise ConfigurationError(self._no_condition(key, "does not honour"), backend=BACKEND)

    async def _store(self, key: str) -> bool:
        try:
            answer = await self._bucket.call(
                "put_object", lost_race_is_none=True, IfNoneMatch="*", Key=key, Body=b""
            )
        except BackendError as exc:
            if not is_unsupported(exc):
                raise
            message = await self._unsupported(key)
            raise ConfigurationError(f"{message} ({exc})", backend=BACKEND) from exc
        return answer is not None

    async def _unsupported(self, key: str) -> str:
        """Return which part of a conditional write the server does not support."""
        with contextlib.suppress(BackendError):
            await self._bucket.call("put_object", Key=key, Body=b"")
            await self._bucket.call("delete_object", Key=key)
            return self._no_condition(key, "refuses")
        return (
            f"the server of {self._bucket.where(key)} refuses the headers of an upload, also "
            "without a condition; if it does not know checksums, set "
            "AWS_REQUEST_CHECKSUM_CALCULATION=when_required and "
            "AWS_RESPONSE_CHECKSUM_VALIDATION=when_required; encryption that it does not know is "
            "set by STREAMQ_S3SNS_ENCRYPTION"
        )

    def _no_condition(self, key: str, verb: str) -> str:
        return (
            f"the server of {self._bucket.where(key)} {verb} `If-None-Match: *`: two attempts "
            "could overwrite each other's segments; use Amazon S3, or a server or version that "
            "supports conditional writes"
        )
