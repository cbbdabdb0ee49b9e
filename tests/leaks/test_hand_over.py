"""The hand-over of large objects has clients and a queue of its own, and leaves none of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

import pytest

from streamq import open_queue, open_writer
from streamq.testing._cancellation import cancel_at_every_await

from .test_leaks import held, until_none


@pytest.mark.full
@pytest.mark.timeout(300)
@pytest.mark.parametrize("settings", ["s3sns"], indirect=True)
async def test_hand_over_cancelled_at_every_await_leaves_nothing(
    settings: object,
) -> None:
    """A worker that uploads files for weeks must not run out of connections to S3."""
    s3sns = pytest.importorskip("streamq_s3sns")

    async def hand_over() -> None:
        async with s3sns.open_hand_over() as opened:
            await opened.upload("stream", b"x")

    async with open_queue() as queue, open_writer("stream", queue=queue, seals_failures=False):
        await hand_over()
        before = Counter(each.partition(" ")[0] for each in held())

        async def left() -> Collection[object]:
            return Counter(each.partition(" ")[0] for each in held()) - before

        async def nothing_is_left() -> None:
            await until_none(left, 10)

        await cancel_at_every_await(hand_over, nothing_is_left, insists=True)
        await cancel_at_every_await(hand_over, nothing_is_left)
