"""Builds the commands that the driver sends, and parses their replies."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, TypeAlias

import redis.exceptions as rx

from streamq.driver import Entry, Stored, encode_position

Reply: TypeAlias = "bytes | int | rx.ResponseError | list[Reply] | None"
Command: TypeAlias = "tuple[bytes | str | int, ...]"
Id: TypeAlias = "tuple[int, int]"
"""The id of an entry as the server orders it: epoch and index."""

_FIELD = "r"
_SCAN_COUNT = 1_000


# -- writing -----------------------------------------------------------------------------------


def add(key: bytes, entry: Entry) -> Command:
    """Add an entry; an id that is not above the newest one is refused."""
    return ("XADD", key, encode_position((entry.epoch, entry.index)), _FIELD, entry.data)


def add_if_exists(key: bytes, entry: Entry) -> Command:
    """Add an entry to a stream; the reply is nil if there is no such stream."""
    number = encode_position((entry.epoch, entry.index))
    return ("XADD", key, "NOMKSTREAM", number, _FIELD, entry.data)


def add_all(key: bytes, entries: Sequence[Entry], ttl_ms: int, *also: Command) -> list[Command]:
    """Add entries and set the time to live, as one transaction, perhaps with more commands."""
    return [
        ("MULTI",),
        *[add(key, entry) for entry in entries],
        expire(key, ttl_ms),
        *also,
        ("EXEC",),
    ]


def index_name(index: bytes, member: bytes, until: int, now: int) -> list[Command]:
    """Note the name of a stream until a time, in seconds, and drop names whose time is over."""
    return [
        ("ZADD", index, until, member),
        ("ZREMRANGEBYSCORE", index, "-inf", now),
    ]


def expire(key: bytes, ttl_ms: int) -> Command:
    """Set the time to live."""
    return ("PEXPIRE", key, ttl_ms)


def remove(key: bytes) -> Command:
    """Remove a stream."""
    return ("UNLINK", key)


def remove_indexed(key: bytes, index: bytes, member: bytes) -> list[Command]:
    """Remove a stream and its name, as one transaction."""
    return [("MULTI",), remove(key), ("ZREM", index, member), ("EXEC",)]


def milliseconds(ttl: timedelta) -> int:
    """Return a time to live as :func:`expire` takes it."""
    return ttl // timedelta(milliseconds=1)


# -- reading -----------------------------------------------------------------------------------


def entries_after(key: bytes, position: str, count: int) -> Command:
    """Return entries after a position, oldest first."""
    return ("XRANGE", key, f"({position}", "+", "COUNT", count)


def newest_entries(key: bytes, count: int) -> Command:
    """Return the newest entries, newest first."""
    return ("XREVRANGE", key, "+", "-", "COUNT", count)


def follow(keys: Sequence[bytes], positions: Sequence[str], count: int, seconds: float) -> Command:
    """Return the next entries of several streams; block until one of them has any."""
    block = int(seconds * 1000)
    return ("XREAD", "COUNT", count, "BLOCK", block, "STREAMS", *keys, *positions)


def unblock(client_id: int) -> Command:
    """Interrupt the blocking command of another connection; the reply is 0 if there is none."""
    return ("CLIENT", "UNBLOCK", client_id)


def facts(key: bytes) -> list[Command]:
    """Ask how many entries a stream has, for its time to live, and for its size."""
    return [("XLEN", key), ("PTTL", key), ("MEMORY", "USAGE", key)]


def last_id(key: bytes) -> list[Command]:
    """Return what the server and the newest entry say about the newest id of a stream.

    The server remembers the id also after the newest entry was removed, but its ACL may forbid the
    question.
    """
    return [("XINFO", "STREAM", key), newest_entries(key, 1)]


def scan(cursor: bytes, pattern: bytes) -> Command:
    """Return a page of the keys that hold streams, and the cursor of the next page."""
    return ("SCAN", cursor, "MATCH", pattern, "COUNT", _SCAN_COUNT, "TYPE", "stream")


def scan_index(index: bytes, cursor: bytes, pattern: bytes) -> Command:
    """Return a page of an index, each name with its time, and the cursor of the next page."""
    return ("ZSCAN", index, cursor, "MATCH", pattern, "COUNT", _SCAN_COUNT)


def greet() -> Command:
    """Ask for facts about the server, by the one command that no ACL forbids."""
    return ("HELLO", 2)


def persistence() -> list[Command]:
    """Return whether and when the server writes what it acknowledges to its disk, and keeps it."""
    return [("INFO", "persistence"), ("CONFIG", "GET", "appendfsync"), ("INFO", "memory")]


# -- replies -----------------------------------------------------------------------------------


def checked(reply: Reply) -> Reply:
    """Return a reply; raise it if it is an error."""
    if isinstance(reply, rx.RedisError):
        raise reply
    return reply


def executed(replies: list[Reply]) -> list[Reply]:
    """Return the replies of the commands of a transaction.

    Raises:
        redis.exceptions.RedisError: It was refused, and why.
    """
    done = replies[-1]
    if not isinstance(done, list):
        # EXECABORT only says that a command was refused; that command's own error says why.
        raise next(reply for reply in replies if isinstance(reply, rx.RedisError))
    return done


def parse_durability(replies: Sequence[Reply]) -> bool:
    """Return by the replies to :func:`persistence` whether an acknowledged record is kept."""
    facts, policy, memory = replies
    has_log = isinstance(facts, bytes) and b"aof_enabled:1" in facts
    # With "everysec" a record may be acknowledged before it has left the server's memory.
    is_synced = isinstance(policy, list) and b"always" in policy
    is_kept = isinstance(memory, bytes) and b"maxmemory_policy:noeviction" in memory
    return has_log and is_synced and is_kept


def parse_greeting(reply: Reply) -> dict[bytes, Reply]:
    """Return the facts in a reply to :func:`greet`.

    Raises:
        redis.exceptions.InvalidResponse: It has another form.
    """
    if not isinstance(reply, list):
        raise rx.InvalidResponse(f"HELLO was answered by a {type(reply).__name__}")
    pairs = zip(reply[::2], reply[1::2], strict=False)
    return {name: value for name, value in pairs if isinstance(name, bytes)}


def is_replica(greeting: dict[bytes, Reply]) -> bool:
    """Whether the facts of :func:`parse_greeting` are those of a replica."""
    return greeting.get(b"role") in (b"replica", b"slave")


def parse_entries(reply: Reply) -> list[Stored]:
    """Return the entries of a reply to XRANGE, XREVRANGE or (of one stream) XREAD."""
    entries: Any = reply or ()
    return [Stored(number.decode(), fields[1]) for number, fields in entries]


def parse_last_id(replies: Sequence[Reply]) -> str | None:
    """Return the newest id by the replies to :func:`last_id`; ``None`` if there is no stream."""
    about, newest = replies
    last = [each.position for each in parse_entries(checked(newest))]
    if isinstance(about, list) and b"last-generated-id" in about:
        number = about[about.index(b"last-generated-id") + 1]
        assert isinstance(number, bytes)
        return number.decode()
    return last[0] if last else None
