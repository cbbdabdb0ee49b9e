"""Translates errors of the server and of redis-py into streamq's.

Design: docs/design/redis.md.
"""

from __future__ import annotations

import os
import re

import redis.exceptions as rx

from streamq.driver import (
    AccessDeniedError,
    BackendError,
    BackendUnavailableError,
    ErrorRule,
    ErrorTable,
    StorageFullError,
    StreamqError,
    exception_classes,
)

BACKEND = "redis"


class RefusedForNowError(rx.AuthenticationError):
    """The server refuses credentials whose source may return others with the next try."""


class GivenUpError(rx.ConnectionError):
    """This connection was in order; its server was given up for what another one has learnt."""


# Error replies without a class of their own, the second line only in older versions of redis-py.
_PASSING = (
    *("BUSY ", "NOREPLICAS ", "UNBLOCKED ", "NOTREADY "),
    *("CLUSTERDOWN ", "MASTERDOWN ", "TRYAGAIN "),
)
_CLUSTER = ("MOVED ", "ASK ", "CROSSSLOT ")

# Replies about the server and not about the command. OOM and NOPERM are none: the server is right.
_OF_SERVER = (
    *("READONLY", "LOADING", "MASTERDOWN", "NOREPLICAS", "CLUSTERDOWN", "TRYAGAIN", "MOVED", "ASK"),
    *("UNBLOCKED", "NOTREADY", "BUSY", "MISCONF", "NOAUTH", "WRONGPASS", "NOMASTERLINK"),
)
_OF_SERVER_CLASSES = (
    *(rx.ReadOnlyError, rx.BusyLoadingError, rx.MasterDownError, rx.ClusterDownError),
    *(rx.TryAgainError, rx.MovedError, rx.AskError, rx.AuthenticationError),
)
_ABORTING: dict[str, type[rx.RedisError]] = {
    "READONLY": rx.ReadOnlyError,
    "OOM": rx.OutOfMemoryError,
    "NOPERM": rx.NoPermissionError,
    "LOADING": rx.BusyLoadingError,
    "MASTERDOWN": rx.MasterDownError,
}

# redis-py's messages about a connection that failed repeat the address once or twice.
_CALL_FAILED = re.compile(
    r"Error (\d+) connecting to \S+\. Connect call failed|\[Errno (\d+)\] Connect call failed"
)
_FORBIDDEN = re.compile(r"run the '([\w|]+)' command")
_CONNECTING = re.compile(r"Error -?\d+ connecting to \S+\. (.+?)\.?")

# First match wins, so that subclasses come before their bases.
_RULES = (
    ErrorRule(
        (rx.AuthenticationError, rx.AuthorizationError, rx.AuthenticationWrongNumberOfArgsError),
        AccessDeniedError,
        "Redis at {at} refuses our credentials: {why}; check those in STREAMQ_REDIS_URL, "
        "STREAMQ_REDIS_PASSWORD_FILE or STREAMQ_REDIS_CREDENTIALS",
    ),
    ErrorRule(
        (rx.NoPermissionError,),
        AccessDeniedError,
        "Redis at {at} does not permit this: {why}; let an administrator run: ACL SETUSER NAME "
        "{rule} (the README of streamq-redis lists all rules that are needed)",
    ),
    ErrorRule(
        (rx.OutOfMemoryError,),
        StorageFullError,
        "Redis at {at} has no memory left: {why}; raise maxmemory or delete streams",
    ),
    ErrorRule(
        (rx.ReadOnlyError,),
        BackendUnavailableError,
        "Redis at {at} is read only (a replica, or a failover is under way): {why}",
    ),
    ErrorRule(
        (rx.BusyLoadingError, rx.MasterDownError, rx.ClusterDownError, rx.TryAgainError),
        BackendUnavailableError,
        "Redis at {at} cannot serve now: {why}",
    ),
    ErrorRule(
        (rx.MaxConnectionsError,),
        BackendUnavailableError,
        "Redis at {at} has too many connections: {why}; raise maxclients",
    ),
    ErrorRule(
        (rx.TimeoutError, TimeoutError),
        BackendUnavailableError,
        "Redis at {at} did not answer in time: {why}",
    ),
    ErrorRule(
        (GivenUpError,),
        BackendUnavailableError,
        "Redis at {at} was given up: {why}; the next try connects again",
    ),
    ErrorRule(
        (rx.ConnectionError, OSError),
        BackendUnavailableError,
        "cannot reach Redis at {at} ({why}); is it running? set STREAMQ_REDIS_URL",
    ),
    ErrorRule(
        (rx.MovedError, rx.AskError, rx.ClusterCrossSlotError),
        BackendError,
        "Redis at {at} is a node of a cluster, which streamq-redis does not support yet: {why}",
    ),
    ErrorRule(
        (rx.InvalidResponse,),
        BackendError,
        "the server at {at} is not Redis: {why}; check host and port in STREAMQ_REDIS_URL",
    ),
)
_CLIENT = (*exception_classes(rx), OSError)


def is_rejected_id(reply: object) -> bool:
    """Whether an XADD was refused because its id is not above the newest one."""
    return isinstance(reply, rx.ResponseError) and "equal or smaller" in str(reply)


def is_wrong_type(error: object) -> bool:
    """Whether a key holds something other than a stream."""
    return isinstance(error, rx.ResponseError) and str(error).startswith("WRONGTYPE")


def aborted_because(reply: Exception) -> Exception:
    """Return the error that made the server abort a transaction at its end; others unchanged."""
    _, because, text = str(reply).partition("discarded because of: ")
    if not because:
        _, because, text = str(reply).partition("discarded because: ")
    if not because or not isinstance(reply, rx.ExecAbortError):
        return reply
    code, _, rest = text.partition(" ")
    kind = _ABORTING.get(code)
    return rx.ResponseError(text) if kind is None else kind(rest)


def is_harmless(refusal: Exception) -> bool:
    """Whether a server that refuses PING this way can be read from all the same.

    The user may not run it; or the disk is full, which makes the server refuse writes and PING.
    """
    return isinstance(refusal, rx.NoPermissionError) or str(refusal).startswith("MISCONF ")


def speaks_of_server(reply: Exception) -> bool:
    """Whether an error reply says that this server should not be used now, by any connection."""
    reply = aborted_because(reply)
    # redis-py drops the first word of the replies that it has classes for.
    return isinstance(reply, _OF_SERVER_CLASSES) or str(reply).split(" ", 1)[0] in _OF_SERVER


def missing_rule(reply: Exception, keys: str) -> str:
    """Return the rule that a user lacks whom the server has refused a command.

    Args:
        reply: The refusal.
        keys: Pattern of all keys of streams.
    """
    found = _FORBIDDEN.search(str(reply))
    return f"+{found[1]}" if found else f"~{keys}"


def to_streamq(
    error: Exception, stream: str | None = None, *, address: str, keys: str = "streamq:*"
) -> StreamqError | None:
    """Return streamq's error for one of the client or the network; ``None`` if it is neither.

    Args:
        error: The exception.
        stream: Stream that the call was about, as ``tenant/name``.
        address: Where the server is, without credentials.
        keys: Pattern of all keys of streams.
    """
    error = aborted_because(error)
    if isinstance(error, rx.ResponseError):
        reason = _reason(error)
        if is_wrong_type(error):
            return BackendError(
                f"the key of this stream on Redis at {address} holds something else: {reason}; "
                "delete that key, or set another STREAMQ_REDIS_KEY_PREFIX",
                backend=BACKEND,
                stream=stream,
            )
        if reason.startswith("MISCONF "):
            return StorageFullError(
                f"Redis at {address} cannot write to its disk: {reason}",
                backend=BACKEND,
                stream=stream,
            )
        if reason.startswith(_PASSING):
            return BackendUnavailableError(
                f"Redis at {address} cannot serve now: {reason}", backend=BACKEND, stream=stream
            )
        if reason.startswith(_CLUSTER):
            error = rx.ClusterCrossSlotError(reason)
    found = _TABLE.translate(error, stream, at=address, rule=missing_rule(error, keys))
    if found is not None and isinstance(error, RefusedForNowError):
        found.retryable = True
    return found


def known(error: Exception) -> Exception:
    """Return an error of a connection as one that :func:`to_streamq` translates.

    redis-py's parsers raise ValueError, RecursionError and others if the server is not Redis.
    """
    if isinstance(error, (*_CLIENT, StreamqError)):
        return error
    found = rx.InvalidResponse(f"{type(error).__name__}: {error}"[:200])
    found.__cause__ = error
    return found


def ending(errors: ExceptionGroup[Exception]) -> Exception:
    """Return what has ended a connection as an error that :func:`to_streamq` translates.

    A server that asks for credentials again forgets who we are; whether it refuses us is found out
    by logging in again.
    """
    error = errors.exceptions[0]
    if isinstance(error, rx.AuthenticationError):
        forgotten = rx.ConnectionError(f"it asks for credentials again: {error}")
        forgotten.__cause__ = error
        return forgotten
    return known(error)


def _reason(error: Exception) -> str:
    text = str(error)
    refused = _CALL_FAILED.search(text)
    if refused is not None:
        return os.strerror(int(refused[1] or refused[2]))
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    connecting = _CONNECTING.fullmatch(text)
    return connecting[1] if connecting else text.rstrip(".") or type(error).__name__


_TABLE = ErrorTable(
    BACKEND,
    _RULES,
    client=_CLIENT,
    reason=_reason,
    otherwise="Redis at {at} answered: {why}",
)
