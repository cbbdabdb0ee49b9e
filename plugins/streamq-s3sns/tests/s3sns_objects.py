"""Shows objects, uploads and requests to tests of the hand-over."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx

from s3sns_bucket import BUCKET, segments
from streamq_s3sns import (
    HandOver,
    S3SnsSettings,
)
from streamq_s3sns._naming import OBJECT


def unfinished(s3: Any, settings: S3SnsSettings) -> list[str]:
    """Return the uploads below the prefix that were neither completed nor aborted."""
    answer = s3.list_multipart_uploads(Bucket=BUCKET)
    found = [each["Key"] for each in answer.get("Uploads", ())]
    return [key for key in found if key.startswith(f"{settings.prefix}/")]


def objects(s3: Any, settings: S3SnsSettings) -> list[str]:
    """Return the keys of objects that were handed over."""
    return [key for key in segments(s3, settings) if OBJECT in key]


async def fetch(url: str, **headers: str) -> httpx.Response:
    """Fetch a URL without credentials."""
    async with httpx.AsyncClient(trust_env=False, verify=False) as client:
        return await client.get(url, headers=headers)


def on_call(hand_over: HandOver, operation: str, handler: Any) -> None:
    """Call a function before each request of a kind; the request fails with what it raises."""
    client = hand_over._objects.bucket.client
    client.meta.events.register(f"before-call.s3.{operation}", handler)


async def pieces(data: bytes) -> AsyncIterator[Any]:
    """Give bytes in pieces of another size than parts, from one buffer that is used again."""
    buffer = bytearray()
    for first in range(0, len(data), 700_001):
        buffer[:] = data[first : first + 700_001]
        yield buffer
