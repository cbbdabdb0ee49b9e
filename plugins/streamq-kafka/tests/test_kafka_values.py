"""What needs no broker: settings, places, listings, and what is kept in memory."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import aiokafka.errors as ke
import pytest
from aiokafka.partitioner import DefaultPartitioner
from aiokafka.structs import TopicPartition
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from streamq.driver import START, ConfigurationError, CursorError, Stored, StreamId
from streamq_kafka import KafkaSettings
from streamq_kafka._naming import LogPosition, decode_position, key_of, partition_of, stream_of
from streamq_kafka.directory._listing import Listing
from streamq_kafka.live_tail._tap import Budget, Tap
from streamq_kafka.reading._page_cache import Page, PageCache
from streamq_kafka.requests._coalescing import Coalescer
from streamq_kafka.requests._connection_options import connection_options

STREAM = StreamId("tenant", "name")


# -- settings ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"bootstrap_servers": "kafka.example"}, "host:port"),
        ({"bootstrap_servers": "kafka://kafka.example:9092"}, "host:port"),
        ({"bootstrap_servers": " , "}, "at least one"),
        ({"bootstrap_servers": "user:secret@kafka.example:9092"}, "STREAMQ_KAFKA_SASL_USERNAME"),
        ({"topic": "with space"}, "letters"),
        ({"topic": "{tenant}-{tenant}"}, "one"),
        ({"topic": "x" * 240}, "characters"),
        ({"topic": "x" * 176 + "{tenant}"}, "characters"),
        ({"security_protocol": "SASL_SSL"}, "STREAMQ_KAFKA_SASL_PASSWORD"),
        (
            {"security_protocol": "SASL_SSL", "sasl_mechanism": "OAUTHBEARER"},
            "STREAMQ_KAFKA_SASL_TOKEN_PROVIDER",
        ),
        ({"fetch_wait_ms": 500, "operation_timeout_seconds": 0.5}, "shorter"),
        ({"compression": "rar"}, "gzip"),
    ],
)
def test_setting_that_cannot_work_is_refused(options: Mapping[str, object], said: str) -> None:
    """A typing error in a deployment is told when it starts, not when the first stream is lost."""
    with pytest.raises(ValidationError) as caught:
        KafkaSettings(**options)  # type: ignore[arg-type]
    assert said in str(caught.value)


def test_password_is_not_shown() -> None:
    """Settings are printed and logged."""
    settings = KafkaSettings(
        security_protocol="SASL_PLAINTEXT",
        sasl_username="somebody",
        sasl_password=SecretStr("s3cr3t"),
    )
    assert "s3cr3t" not in repr(settings)
    assert connection_options(settings)["sasl_plain_password"] == "s3cr3t"


def test_file_that_is_missing_is_named_by_its_setting(tmp_path: Path) -> None:
    """A wrong path in a container is found by its variable."""
    settings = KafkaSettings(security_protocol="SSL", tls_ca_file=str(tmp_path / "no.pem"))
    with pytest.raises(ConfigurationError, match="STREAMQ_KAFKA_TLS_CA_FILE"):
        connection_options(settings)


async def test_token_comes_from_a_function_of_the_application() -> None:
    """MSK and others hand out tokens that expire: only the application knows how to get one."""
    settings = KafkaSettings(
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism="OAUTHBEARER",
        sasl_token_provider="platform:node",
    )
    provider = connection_options(settings)["sasl_oauth_token_provider"]
    assert await provider.token()
    unknown = settings.model_copy(update={"sasl_token_provider": "platform:no_such_function"})
    with pytest.raises(ConfigurationError, match="SASL_TOKEN_PROVIDER"):
        connection_options(unknown)


def test_tenants_may_have_topics_of_their_own() -> None:
    """Quotas, retention and ACLs of Kafka are per topic."""
    settings = KafkaSettings(topic="chunks-{tenant}")
    assert (settings.is_per_tenant, settings.topic_of("acme")) == (True, "chunks-acme")


def test_tenant_cannot_have_the_directory_of_another() -> None:
    """Tenants are strangers to each other, and some of them choose their names."""
    with pytest.raises(ConfigurationError, match="directory of another"):
        KafkaSettings(topic="chunks-{tenant}").topic_of("acme.directory")
    assert KafkaSettings(topic="{tenant}-chunks").topic_of("a.directory") == "a.directory-chunks"


@pytest.mark.parametrize("name", KafkaSettings.model_fields)
def test_setting_is_in_the_readme(name: str) -> None:
    """Operators read the table, not the code."""
    readme = (Path(__file__).parent.parent / "README.md").read_text("utf-8")
    full, short = f"`STREAMQ_KAFKA_{name.upper()}`", f"`_{name.upper()}`"
    assert full in readme or short in readme


# -- places ------------------------------------------------------------------------------------


@given(st.integers(0, 999_999), st.integers(0, 10**18 - 1))
def test_position_leads_back_to_its_place(partition: int, offset: int) -> None:
    """A cursor is used in another process, days later."""
    assert decode_position(LogPosition(partition, offset).encode(), STREAM) == LogPosition(
        partition, offset
    )


@given(st.text())
def test_text_that_is_no_position_is_refused(text: str) -> None:
    """Cursors come from browsers: whatever is in them, it is an answer and not a crash."""
    with contextlib.suppress(CursorError):
        assert text == START or decode_position(text, STREAM) is not None


@given(st.binary(min_size=1, max_size=80), st.integers(1, 100))
def test_partition_is_the_one_that_other_clients_choose(key: bytes, partitions: int) -> None:
    """A Kafka Streams job that joins on the key relies on it."""
    everything = list(range(partitions))
    assert partition_of(key, partitions) == DefaultPartitioner()(key, everything, everything)


def test_key_leads_back_to_its_stream() -> None:
    """Listing reads names from keys, and topics may hold keys of others."""
    stream = StreamId("tenant", "a/b ü")
    assert stream_of(key_of(stream)) == stream
    assert [stream_of(key) for key in (b"", b"tenant", b"\xff/x", b"ten ant/x")] == [None] * 4


# -- the directory's entries -------------------------------------------------------------------

LISTINGS = st.builds(
    Listing,
    partition=st.just(3),
    first=st.integers(0, 50),
    epoch=st.integers(1, 50),
    created_ms=st.just(0),
)


@given(st.lists(LISTINGS, min_size=1))
def test_entries_amount_to_the_largest_epoch_and_the_first_beginning(
    entries: list[Listing],
) -> None:
    """Two processes open one stream at once: the newer attempt wins, and nothing is overlooked."""
    merged = entries[0]
    for entry in entries[1:]:
        merged = merged.merge(entry)
    assert merged.epoch == max(entry.epoch for entry in entries)
    assert merged.first == min(entry.first for entry in entries)
    last = entries[-1]
    assert merged.is_settled == ((last.first, last.epoch) == (merged.first, merged.epoch))


@given(LISTINGS)
def test_entry_is_read_as_it_was_written(entry: Listing) -> None:
    """Every process has to find the same beginning."""
    assert Listing.decode(entry.encode(), 0) == entry


@pytest.mark.parametrize(
    "value",
    [b"", b"{", b"[]", b"{}", b'{"v":2}', b'{"v":1,"partition":-1,"first":0,"epoch":1}', b"\xff"],
)
def test_entry_of_somebody_else_is_ignored(value: bytes) -> None:
    """A stray message in the directory must not stop every reader."""
    assert Listing.decode(value, 0) is None


# -- what is kept in memory --------------------------------------------------------------------


def _stored(offset: int, size: int = 1) -> Stored:
    return Stored(f"0-{offset + 1}", b"x" * size)


def test_tap_keeps_the_newest_and_says_what_it_has_dropped() -> None:
    """A slow reader must cost a bounded amount of memory, and must not skip anything."""
    budget = Budget(10**6)
    tap = Tap(5, 4_000, budget, 0.0)
    for offset in range(5, 25):
        tap.push(offset, _stored(offset, 1_000))
    kept = tap.after(0, 100, 10**6)
    assert [record.position for record in kept] == ["0-23", "0-24", "0-25"]
    assert (tap.covers(21), tap.covers(22), tap.floor) == (False, True, 22)
    tap.retire()
    assert budget.used == 0


def test_taps_share_a_budget() -> None:
    """Ten thousand quiet streams together must not fill the memory either."""
    budget = Budget(5_000)
    taps = [Tap(0, 10**6, budget, 0.0) for _ in range(4)]
    for offset in range(40):
        for tap in taps:
            tap.push(offset, _stored(offset, 500))
    assert budget.used <= 5_000
    assert all(tap.after(39, 9, 9_999) for tap in taps), "the newest is always there"


def test_tap_learns_that_there_was_nothing_before_it() -> None:
    """A reader that waits at an old place must not scan all that lies between, again and again."""
    tap = Tap(100, 1_000, Budget(10**6), 0.0)
    tap.extend(40, 99)
    assert not tap.covers(40), "what lies between 99 and 100 was not looked at"
    tap.extend(40, 120)
    assert tap.covers(40)


@dataclass(frozen=True, slots=True)
class _Record:
    key: bytes
    value: bytes | None
    offset: int


def _page(start: int, following: int, size: int = 10) -> Page:
    return Page(
        start, following, [_Record(b"k", b"x" * size, offset) for offset in range(start, following)]
    )


def test_pages_are_found_by_any_offset_within() -> None:
    """Readers at different places of one page need one fetch."""
    pages, partition = PageCache(10**6), TopicPartition("t", 0)
    first, second = _page(0, 10), _page(20, 30)
    pages.add(partition, first)
    pages.add(partition, second)
    assert [pages.find(partition, at) for at in (0, 9, 10, 19, 20, 29, 30)] == [
        *(first, first, None, None),
        *(second, second, None),
    ]
    assert pages.find(TopicPartition("t", 1), 0) is None
    pages.forget(partition)
    assert pages.find(partition, 0) is None


def test_pages_that_were_not_used_go_first() -> None:
    """History is long and memory is not."""
    pages, partition = PageCache(10_000), TopicPartition("t", 0)
    for start in range(0, 100, 10):
        pages.add(partition, _page(start, start + 10, 100))
        assert pages.find(partition, 0) is not None, "used all the time"
    assert pages.find(partition, 10) is None
    assert pages.find(partition, 90) is not None


# -- asking together ---------------------------------------------------------------------------


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
