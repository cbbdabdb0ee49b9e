"""Shows the bucket and the requests of a queue to tests of the driver."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from streamq.driver import ChunkQueue
from streamq_s3sns import S3SnsSettings
from streamq_s3sns._queue import S3SnsQueue

BUCKET = "streams"
PLENTY: dict[str, int] = {"max_records": 10_000, "max_bytes": 2**24}


def segments(s3: Any, settings: S3SnsSettings) -> list[str]:
    """Return the keys below the prefix, the newest segment of a stream first."""
    answer = s3.list_objects_v2(Bucket=BUCKET, Prefix=f"{settings.prefix}/")
    return [each["Key"] for each in answer.get("Contents", ())]


def count_calls(queue: ChunkQueue, fault: Callable[[str], None] | None = None) -> Counter[str]:
    """Count the requests of a queue to S3 from now on; a function may make some fail."""
    assert isinstance(queue, S3SnsQueue)
    calls: Counter[str] = Counter()
    store = queue._store
    client = store.bucket.client

    class Counting:
        def __getattr__(self, name: str) -> Any:
            async def call(**arguments: Any) -> Any:
                calls[name] += 1
                if fault is not None:
                    fault(name)
                return await getattr(client, name)(**arguments)

            return call

    store.bucket.client = Counting()
    return calls
