"""From what the server and redis-py call errors to what streamq calls them: the one place."""

from __future__ import annotations

import inspect
import os
import re
from types import TracebackType

import redis.exceptions as rx

from streamq.driver import (
    AccessDeniedError,
    BackendError,
    BackendUnavailableError,
    StorageFullError,
    StreamqError,
)

BACKEND = "redis"

# Without a class of their own, the second line only in older versions of redis-py.
_PASSING = (
    *("BUSY ", "NOREPLICAS ", "UNBLOCKED ", "NOTREADY "),
    *("CLUSTERDOWN ", "MASTERDOWN ", "TRYAGAIN "),
)
_CLUSTER = ("MOVED ", "ASK ", "CROSSSLOT ")

# How redis-py tells of a connection that did not come about: with the address, once or twice.
_CALL_FAILED = re.compile(
    r"Error (\d+) connecting to \S+\. Connect call failed|\[Errno (\d+)\] Connect call failed"
)
_CONNECTING = re.compile(r"Error -?\d+ connecting to \S+\. (.+?)\.?")

# First match wins, so that subclasses come before their bases.
_RULES: tuple[tuple[tuple[type[Exception], ...], type[StreamqError], str], ...] = (
    (
        (rx.AuthenticationError, rx.AuthorizationError, rx.AuthenticationWrongNumberOfArgsError),
        AccessDeniedError,
        "Redis at {at} refuses our credentials: {why}; check STREAMQ_REDIS_URL",
    ),
    (
        (rx.NoPermissionError,),
        AccessDeniedError,
        "Redis at {at} does not permit this: {why}; the README of streamq-redis lists the ACL "
        "rules that are needed",
    ),
    (
        (rx.OutOfMemoryError,),
        StorageFullError,
        "Redis at {at} has no memory left: {why}; raise maxmemory or delete streams",
    ),
    (
        (rx.ReadOnlyError,),
        BackendUnavailableError,
        "Redis at {at} is read only (a replica, or a failover is under way): {why}",
    ),
    (
        (rx.BusyLoadingError, rx.MasterDownError, rx.ClusterDownError, rx.TryAgainError),
        BackendUnavailableError,
        "Redis at {at} cannot serve now: {why}",
    ),
    (
        (rx.MaxConnectionsError,),
        BackendUnavailableError,
        "Redis at {at} has too many connections: {why}; raise maxclients",
    ),
    (
        (rx.TimeoutError, TimeoutError),
        BackendUnavailableError,
        "Redis at {at} did not answer in time: {why}",
    ),
    (
        (rx.ConnectionError, OSError),
        BackendUnavailableError,
        "cannot reach Redis at {at} ({why}); is it running? set STREAMQ_REDIS_URL",
    ),
    (
        (rx.MovedError, rx.AskError, rx.ClusterCrossSlotError),
        BackendError,
        "Redis at {at} is a node of a cluster, which streamq-redis does not support yet: {why}",
    ),
    (
        (rx.InvalidResponse,),
        BackendError,
        "what answers at {at} is not Redis: {why}; check host and port in STREAMQ_REDIS_URL",
    ),
)
_CLIENT_CLASSES = tuple(
    found for found in vars(rx).values() if inspect.isclass(found) and issubclass(found, Exception)
)


def is_rejected_id(reply: object) -> bool:
    """Whether an XADD was refused because its id is not above the newest one."""
    return isinstance(reply, rx.ResponseError) and "equal or smaller" in str(reply)


def is_wrong_type(error: object) -> bool:
    """Whether a key holds something else than a stream."""
    return isinstance(error, rx.ResponseError) and str(error).startswith("WRONGTYPE")


def to_streamq(error: Exception, address: str, stream: str | None = None) -> StreamqError | None:
    """Return our error for one of the client or the network; ``None`` if it is neither."""
    if not isinstance(error, (*_CLIENT_CLASSES, OSError)):
        return None
    why = _why(error)
    if isinstance(error, rx.ResponseError):
        if is_wrong_type(error):
            return BackendError(
                f"the key of this stream on Redis at {address} holds something else: {why}; "
                "delete that key, or set another STREAMQ_REDIS_KEY_PREFIX",
                backend=BACKEND,
                stream=stream,
            )
        if why.startswith("MISCONF "):
            return StorageFullError(
                f"Redis at {address} cannot write to its disk: {why}",
                backend=BACKEND,
                stream=stream,
            )
        if why.startswith(_PASSING):
            return BackendUnavailableError(
                f"Redis at {address} cannot serve now: {why}", backend=BACKEND, stream=stream
            )
        if why.startswith(_CLUSTER):
            error = rx.ClusterCrossSlotError(why)
    for classes, ours, message in _RULES:
        if isinstance(error, classes):
            return ours(message.format(at=address, why=why), backend=BACKEND, stream=stream)
    return BackendError(f"Redis at {address} answered: {why}", backend=BACKEND, stream=stream)


def known(error: Exception) -> Exception:
    """Return an error of a connection as one that :func:`to_streamq` has a word for.

    redis-py's parsers raise ValueError, RecursionError and others at what is not Redis.
    """
    if isinstance(error, (*_CLIENT_CLASSES, OSError, StreamqError)):
        return error
    found = rx.InvalidResponse(f"{type(error).__name__}: {error}"[:200])
    found.__cause__ = error
    return found


class redis_errors:
    """Context manager that turns every error of the client into one of streamq's.

    A class and not a generator because it is entered for every append and read.
    """

    __slots__ = ("_address", "_stream")

    def __init__(self, address: str, stream: object = None) -> None:
        self._address = address
        self._stream = stream

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if exc is None or isinstance(exc, StreamqError) or not isinstance(exc, Exception):
            return
        stream = None if self._stream is None else str(self._stream)
        ours = to_streamq(exc, self._address, stream)
        if ours is not None:
            raise ours from exc


def _why(error: Exception) -> str:
    text = str(error)
    refused = _CALL_FAILED.search(text)
    if refused is not None:
        return os.strerror(int(refused[1] or refused[2]))
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    connecting = _CONNECTING.fullmatch(text)
    return connecting[1] if connecting else text or type(error).__name__
