"""The driver: opens queues on a bucket, examines the account, and creates what is missing.

Design: docs/design/s3sns.md.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

from streamq.driver import (
    BackendError,
    Capabilities,
    ChunkQueue,
    ConfigurationError,
    Driver,
    Finding,
    LatencyClass,
    QueueOptions,
)

from ._errors import BACKEND
from ._queue import S3SnsQueue
from ._settings import S3SnsSettings
from .doctor._doctor import open_doctor
from .embedded import embedded_s3sns

RECORD_BYTES = 8 * 2**20


class S3SnsDriver(Driver[S3SnsSettings]):
    """Streams as immutable segments in S3."""

    name = BACKEND
    summary = "Amazon S3, and SNS to wake readers: nothing to run, large chunks, kept cheaply"
    capabilities = Capabilities(
        replay=True,
        fan_out=True,
        ordered=True,
        fenced=True,
        durable=True,
        cross_process=True,
        cross_host=True,
        expires=True,
        max_record_bytes=RECORD_BYTES,
        latency=LatencyClass.TENS_OF_MILLISECONDS,
    )
    settings_type = S3SnsSettings

    @classmethod
    async def open(cls, options: QueueOptions, settings: S3SnsSettings) -> ChunkQueue:
        """Connect, and check that the bucket can be listed.

        The queue promises ``erases`` only if it can see that the bucket keeps no versions, and the
        quicker latency class only with a topic.

        Raises:
            BackendUnavailableError: S3 cannot be reached in time.
            AccessDeniedError: S3 refuses the credentials, or does not let them list the bucket.
            ConfigurationError: No bucket is set, or it does not exist.
        """
        _check_bucket_is_set(settings)
        queue = S3SnsQueue(options, settings, cls.capabilities)
        try:
            await queue.start()
        except BackendError as exc:
            await queue.aclose()
            raise ConfigurationError(
                f"bucket {settings.bucket!r} cannot carry streams: {exc}", backend=BACKEND
            ) from exc
        except BaseException:
            await queue.aclose()
            raise
        return queue

    @classmethod
    async def examine(cls, options: QueueOptions, settings: S3SnsSettings) -> Sequence[Finding]:
        """Examine the bucket, its versions, its lifecycle rules and the topic."""
        _check_bucket_is_set(settings)
        async with open_doctor(options, settings) as doctor:
            return await doctor.examine()

    @classmethod
    async def provision(cls, options: QueueOptions, settings: S3SnsSettings) -> Sequence[str]:
        """Create the bucket, a lifecycle rule and the topic, where they are missing."""
        _check_bucket_is_set(settings)
        async with open_doctor(options, settings) as doctor:
            return await doctor.provision()

    @classmethod
    def embedded(
        cls, settings: S3SnsSettings
    ) -> contextlib.AbstractContextManager[Mapping[str, str]] | None:
        """Return an emulator with a bucket and a topic, unless a bucket or endpoint is configured.

        AWS's own variables do not count as configuration: every account has them set.
        """
        is_configured = "bucket" in settings.model_fields_set or settings.endpoint_url
        return None if is_configured else embedded_s3sns(settings.region)


def _check_bucket_is_set(settings: S3SnsSettings) -> None:
    if not settings.bucket:
        raise ConfigurationError(
            "no bucket is set; set STREAMQ_S3SNS_BUCKET to one that exists, or to one that "
            "`streamq doctor --create` shall create",
            backend=BACKEND,
        )
