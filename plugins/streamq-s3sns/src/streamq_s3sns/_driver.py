"""The driver: opens queues on a bucket, looks at it, and creates what is missing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence

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
from streamq_aws.embedded import REGION, Ministack

from ._doctor import doctor
from ._queue import S3SnsQueue
from ._segment import BACKEND
from ._settings import S3SnsSettings

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
        """Connect, and see that the bucket can be listed.

        The queue promises ``erases`` only if it can see that the bucket keeps no versions, and the
        quicker latency class only with a topic.

        Raises:
            BackendUnavailableError: S3 cannot be reached in time.
            AccessDeniedError: It refuses our credentials, or listing the bucket.
            ConfigurationError: No bucket is set, or it does not exist.
        """
        _check(settings)
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
        """Look at the bucket, its versions, its lifecycle rule and the topic."""
        _check(settings)
        async with doctor(options, settings) as found:
            return await found.examine()

    @classmethod
    async def provision(cls, options: QueueOptions, settings: S3SnsSettings) -> Sequence[str]:
        """Create the bucket, a lifecycle rule and the topic, where they are missing."""
        _check(settings)
        async with doctor(options, settings) as found:
            return await found.provision()

    @classmethod
    def embedded(
        cls, settings: S3SnsSettings
    ) -> contextlib.AbstractContextManager[Mapping[str, str]] | None:
        """Return an emulator with a bucket and a topic, unless a bucket or endpoint is configured.

        Where AWS's own variables lead is no reason against it: every account has them set.
        """
        is_configured = "bucket" in settings.model_fields_set or settings.endpoint_url
        return None if is_configured else _embedded(settings.region or REGION)


def _check(settings: S3SnsSettings) -> None:
    if not settings.bucket:
        raise ConfigurationError(
            "no bucket is set; set STREAMQ_S3SNS_BUCKET to one that exists, or to one that "
            "`streamq doctor --create` shall create",
            backend=BACKEND,
        )


@contextlib.contextmanager
def _embedded(region: str) -> Iterator[Mapping[str, str]]:
    bucket = "streamq"
    with Ministack() as server:
        with server.client("s3") as s3:
            s3.create_bucket(Bucket=bucket)
        with server.client("sns", region) as sns:  # of another region no queue could use it
            topic = sns.create_topic(Name=bucket)["TopicArn"]
        yield {
            **server.environment,
            # These win over what is set for AWS, also for one service or in a profile.
            "STREAMQ_S3SNS_ENDPOINT_URL": server.url,
            "STREAMQ_S3SNS_REGION": region,
            "STREAMQ_S3SNS_BUCKET": bucket,
            "STREAMQ_S3SNS_TOPIC_ARN": topic,
        }
