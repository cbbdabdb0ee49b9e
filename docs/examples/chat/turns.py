"""Runs a turn of the chat: a workflow asks a model, and an activity streams its words."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

from temporalio import activity, workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError

from streamq import StreamWriter
from streamq.temporal import streaming_activity

_ANSWER = (
    "The sea was there before the question, and it will be there after the answer. It takes the "
    "colour of the sky, the shape of the coast and the time of the moon, and gives none of them "
    "back. Whoever asks it for more hears the same sentence again, a little further up the beach. "
)
_DRAFT = "A first draft, of which nobody will ever hear again:"


async def model(question: str, attempt: int) -> AsyncIterator[str]:
    """Stand for a model: yield words, and fail if the question says so."""
    if "retry" in question and attempt == 1:
        for word in _DRAFT.split():
            yield f"{word} "
            await asyncio.sleep(0.1)
        raise ConnectionError("the model's server has closed the connection")
    for count, word in enumerate((_ANSWER * (3 if "long" in question else 1)).split()):
        if "fail" in question and count == 5:
            raise ApplicationError("the model has no words left today", non_retryable=True)
        yield f"{word} "
        await asyncio.sleep(0.02)


@streaming_activity
async def answer(stream: StreamWriter, question: str) -> str:
    """Stream the answer word by word; return it as a whole. A retry starts over."""
    words = []
    async for word in model(question, activity.info().attempt):
        await stream.send_chunk(word)
        words.append(word)
    return "".join(words)


@workflow.defn
class Turn:
    """One question and its answer. Its stream is named after it: nothing else is passed around."""

    @workflow.run
    async def run(self, question: str) -> str:
        """Return the answer."""
        return await workflow.execute_activity(
            answer,
            question,
            start_to_close_timeout=timedelta(minutes=5),
            heartbeat_timeout=timedelta(seconds=10),
            retry_policy=RetryPolicy(initial_interval=timedelta(seconds=1), maximum_attempts=3),
        )
