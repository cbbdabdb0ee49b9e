"""Runs an emulator of S3, SNS and SQS that streams can be stored in at once, for demos and tests.

Design: docs/design/s3sns.md.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

from streamq_aws.embedded import REGION, Ministack

_NAME = "streamq"


@contextlib.contextmanager
def embedded_s3sns(region: str | None = None) -> Iterator[Mapping[str, str]]:
    """Start an emulator with a bucket and a topic; stop it at the end.

    Args:
        region: Region of the topic; by default the emulator's. Clients of another region cannot use
            it.

    Returns:
        Environment variables under which the driver uses the emulator.
    """
    region = region or REGION
    with Ministack() as server:
        with server.client("s3") as s3:
            s3.create_bucket(Bucket=_NAME)
        with server.client("sns", region) as sns:
            topic = sns.create_topic(Name=_NAME)["TopicArn"]
        yield {
            **server.environment,
            # These take precedence over AWS's own variables, also over those for one service and
            # over a profile.
            "STREAMQ_S3SNS_ENDPOINT_URL": server.url,
            "STREAMQ_S3SNS_REGION": region,
            "STREAMQ_S3SNS_BUCKET": _NAME,
            "STREAMQ_S3SNS_TOPIC_ARN": topic,
        }
