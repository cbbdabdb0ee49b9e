"""One request for the same question of many tasks, without a broker."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

import aiokafka.errors as ke
import pytest

from streamq_kafka.requests._coalescing import Coalescer


async def test_one_request_answers_many_tasks() -> None:
    """A thousand open writers check once a second whether they have been superseded."""
    asked: list[set[int]] = []

    async def ask(keys: Iterable[int]) -> Mapping[int, int | Exception]:
        asked.append(set(keys))
        await asyncio.sleep(0)
        return {key: ValueError("three") if key == 3 else 10 * key for key in asked[-1]}

    coalescer = Coalescer(ask, timeout_seconds=5.0)
    first = asyncio.gather(*(coalescer.load(key) for key in (1, 2, 1, 3)), return_exceptions=True)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    late = asyncio.gather(coalescer.load(1), coalescer.load(4))
    assert [str(answer) for answer in await first] == ["10", "20", "10", "three"]
    assert list(await late) == [10, 40]
    assert asked == [{1, 2, 3}, {1, 4}], "a task that comes during a request needs a newer answer"


async def test_failed_request_fails_only_its_own_tasks() -> None:
    """One broken connection must not stop later requests."""
    is_broken = True

    async def ask(keys: Iterable[int]) -> Mapping[int, int | Exception]:
        if is_broken:
            raise ConnectionResetError
        return dict.fromkeys(keys, 1)

    coalescer = Coalescer(ask, timeout_seconds=5.0)
    with pytest.raises(ConnectionResetError):
        await coalescer.load(1)
    is_broken = False
    assert await coalescer.load(1) == 1
    waiting = asyncio.ensure_future(coalescer.load(2))
    await asyncio.sleep(0)
    coalescer.close(EOFError())
    with pytest.raises(EOFError):
        await waiting
    with pytest.raises(EOFError):
        await coalescer.load(1)


async def test_key_without_an_answer_is_retryable() -> None:
    """A broker that leaves out a partition no longer leads it; streamq retries."""

    async def ask(keys: Iterable[int]) -> Mapping[int, int | Exception]:
        return {key: key for key in keys if key != 2}

    coalescer = Coalescer(ask, timeout_seconds=5.0)
    answered, missing = coalescer.load(1), coalescer.load(2)
    outcomes = await asyncio.gather(answered, missing, return_exceptions=True)
    assert outcomes[0] == 1
    assert isinstance(outcomes[1], ke.LeaderNotAvailableError)


async def test_timeout_includes_the_request_before() -> None:
    """A frozen server must not cost the timeout twice: for the request before, and for ours."""

    async def ask(keys: Iterable[int]) -> Mapping[int, int | Exception]:
        await asyncio.sleep(3600)
        return dict.fromkeys(keys, 1)

    coalescer = Coalescer(ask, timeout_seconds=0.05)
    waiting = [asyncio.ensure_future(coalescer.load(key)) for key in range(3)]
    await asyncio.sleep(0)
    waiting.append(asyncio.ensure_future(coalescer.load(4)))
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [TimeoutError] * 4
    coalescer.close(EOFError())
