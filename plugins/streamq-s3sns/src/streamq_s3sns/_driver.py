"""The driver: opens queues on a bucket, looks at it, and creates what is missing."""

from __future__ import annotations

from streamq.driver import (
    BackendError,
    Capabilities,
    ChunkQueue,
    ConfigurationError,
    Driver,
    LatencyClass,
    QueueOptions,
)

from ._queue import S3SnsQueue
from ._segment import BACKEND
from ._settings import S3SnsSettings

RECORD_BYTES = 8 * 2**20


class S3SnsDriver(Driver[S3SnsSettings]):
    """Streams as immutable segments in S3."""

    name = BACKEND
    summary = "Amazon S3, and SNS to wake readers: nothing to run, chunks of any size, kept cheaply"
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
        """Connect, and see that the bucket can be listed.

        The queue promises ``erases`` only if it can see that the bucket keeps no versions, and the
        quicker latency class only with a topic.

        Raises:
            BackendUnavailableError: S3 cannot be reached in time.
            AccessDeniedError: It refuses our credentials, or listing the bucket.
            ConfigurationError: No bucket is set, or it does not exist.
        """
        if not settings.bucket:
            raise ConfigurationError(
                "no bucket is set; set STREAMQ_S3SNS_BUCKET to one that exists, or to one that "
                "`streamq doctor --create` shall create",
                backend=BACKEND,
            )
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
