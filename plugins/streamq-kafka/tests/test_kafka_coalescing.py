"""One request for the same question of many tasks, without a broker."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

import aiokafka.errors as ke
import pytest

from streamq_kafka.requests._coalescing import Coalescer


async def test_questions_of_many_are_one() -> None:
    """A thousand open writers ask once a second whether they have been superseded."""
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
    assert asked == [{1, 2, 3}, {1, 4}], "who comes while a question is out needs a newer answer"


async def test_round_that_fails_fails_who_asked_and_nobody_else() -> None:
    """One broken connection must not stop the questions that come after it."""
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


async def test_round_without_an_answer_is_asked_again() -> None:
    """A broker that leaves out a partition does not lead it any more: streamq retries that."""

    async def ask(keys: Iterable[int]) -> Mapping[int, int | Exception]:
        return {key: key for key in keys if key != 2}

    coalescer = Coalescer(ask, timeout_seconds=5.0)
    answered, missing = coalescer.load(1), coalescer.load(2)
    outcomes = await asyncio.gather(answered, missing, return_exceptions=True)
    assert outcomes[0] == 1
    assert isinstance(outcomes[1], ke.LeaderNotAvailableError)


async def test_round_after_round_is_waited_for_once() -> None:
    """A frozen server must not cost its timeout twice: once for those before, once for us."""

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
