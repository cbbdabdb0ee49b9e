"""Stands for a model that answers word by word.

Asked for something flaky it breaks off, and answers whole when asked again. Asked for something
forbidden it refuses after some words.
"""

import asyncio
from collections.abc import AsyncIterator

from temporalio import activity
from temporalio.exceptions import ApplicationError

ANSWER = ["The", "lighthouse", "says", "nothing,", "and", "the", "sea", "repeats", "it."]


async def words(prompt: str) -> AsyncIterator[str]:
    """Yield the words of an answer.

    Raises:
        ConnectionError: The prompt is flaky, and this is the activity's first attempt.
        ApplicationError: The prompt is forbidden; asking again is of no use.
    """
    for number, word in enumerate(ANSWER):
        if number == 3 and "flaky" in prompt and activity.info().attempt == 1:
            raise ConnectionError("the model hung up")
        if number == 3 and "forbidden" in prompt:
            raise ApplicationError("the model refuses", non_retryable=True)
        yield word + " "
        await asyncio.sleep(0.05)
