"""The contract for driver authors: what a backend has to do, and what it may leave to streamq.

A driver is small: it makes one round trip and reports. Packing, sequencing, batching, retry,
deduplication, endings and capability checks live once, in streamq itself. A driver never retries,
never swallows an error and never looks inside the bytes that it stores. (:class:`RetryPolicy` is
for what a plugin offers beside its driver.)

Parts that several drivers need are here, too: :class:`Tap` and :func:`within_bounds` for reading,
:class:`translated_errors` and :class:`ErrorTable` for errors, :class:`Calls`,
:class:`SingleFlight`, :func:`together` and :func:`to_the_end` for what is under way. A driver may
use them or not.

A driver package registers a :class:`Driver` subclass under its backend name in the entry point
group ``streamq.drivers``.
"""

from __future__ import annotations

import abc
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar, Generic, Self, TypeVar

from ._bounds import within_bounds
from ._calls import Calls, closed_error
from ._capabilities import Capabilities, LatencyClass
from ._cleanup import to_the_end
from ._client_errors import ErrorRule, ErrorTable, exception_classes, translated_errors
from ._credentials import mask_credentials
from ._errors import (
    AccessDeniedError,
    BackendError,
    BackendUnavailableError,
    ClosedError,
    ConfigurationError,
    CursorError,
    FencedError,
    SealedError,
    StorageFullError,
    StreamNotFoundError,
    StreamqError,
    ThrottledError,
)
from ._events import StreamId
from ._position import BEFORE_ALL, decode_position, encode_position
from ._retry import RetryPolicy
from ._settings import DriverSettings
from ._single_flight import SingleFlight
from ._tap import Tap, TapBudget
from ._together import together

START = ""
"""The position before the first record of any stream."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A record to be stored.

    ``(epoch, index)`` identifies it within its stream and orders it: entries of one epoch have a
    growing index, and a larger epoch supersedes every smaller one.

    Attributes:
        epoch: Which run of the producer wrote it, 1 to 2**63-1.
        index: Place within the epoch, 0 to 2**63-1; it grows, not always by one. 0 is the record
            that opens the epoch and fences older ones.
        data: The bytes to store, opaque to the driver.
    """

    epoch: int
    index: int
    data: bytes


def new_entries(
    entries: Sequence[Entry], newest: tuple[int, int], *, backend: str, stream: StreamId
) -> list[Entry]:
    """Return the entries that are still to be stored, by the rules of :meth:`ChunkQueue.append`.

    For drivers that fence by themselves, within whatever makes their append atomic. It looks at all
    entries before it returns: where it raises, none of them has been stored.

    Args:
        entries: What is appended.
        newest: ``(epoch, index)`` of the newest entry stored, a tuple; ``(0, -1)`` if there is
            none.
        backend: The driver's name, for the message.
        stream: Which stream, for the message.

    Raises:
        FencedError: One of them has an older epoch.
    """
    fresh: list[Entry] = []
    for entry in entries:
        if entry.epoch < newest[0]:
            raise FencedError(
                f"epoch {newest[0]} has taken over stream {stream}; epoch {entry.epoch} must stop",
                backend=backend,
                stream=str(stream),
            )
        if (entry.epoch, entry.index) > newest:
            fresh.append(entry)
            newest = (entry.epoch, entry.index)
    return fresh


@dataclass(frozen=True, slots=True)
class Stored:
    """A record as read.

    Attributes:
        position: Where reading goes on after this record: short, printable, meaningful to this
            driver only, valid in other processes and later.
        data: Exactly the bytes that were appended.
    """

    position: str
    data: bytes


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """What a backend knows of a stream without reading it.

    Attributes:
        stream: Which stream.
        last: The newest records, newest first, as many as were asked for and exist.
        records: How many records are stored, if cheap to know.
        size_bytes: How much they take, if cheap to know.
        expires_in: Time until the stream disappears by itself or, without
            ``capabilities.expires``, until a sweep may remove it (then 0 if that is due); ``None``
            if neither is known.
        attempts: How many epochs have been opened, if the backend counts them; needed only without
            ``capabilities.replay``, where nobody else can.
    """

    stream: StreamId
    last: tuple[Stored, ...] = ()
    records: int | None = None
    size_bytes: int | None = None
    expires_in: timedelta | None = None
    attempts: int | None = None


class ChunkQueue(abc.ABC):
    """An open connection to a backend. Safe to use from many tasks of one event loop.

    Every method raises errors of :mod:`streamq` only: :class:`~streamq.BackendUnavailableError`
    when the backend cannot be reached or does not answer, :class:`~streamq.ThrottledError` when it
    takes no more requests for now, :class:`~streamq.AccessDeniedError` for credentials and
    permissions, :class:`~streamq.StorageFullError` when it has no room,
    :class:`~streamq.BackendError` for any other answer, and :class:`~streamq.ClosedError` after
    :meth:`aclose`.
    """

    backend: str
    """The driver's name, for messages."""

    capabilities: Capabilities
    """What this queue promises."""

    hidden_seconds: float = 0.0
    """For how long at most what a reader had taken that died is hidden from others.

    0 where reading takes nothing away (``capabilities.replay``).
    """

    @abc.abstractmethod
    async def append(
        self, stream: StreamId, entries: Sequence[Entry], *, ttl: timedelta | None = None
    ) -> None:
        """Store entries, in order, durably as far as declared, and make blocked readers see them.

        The stream comes into being with its first entry. From then on it has a time to live
        (``capabilities.expires``), which every append starts anew, in one step with storing: a
        producer that dies right after its first record leaves nothing behind for ever.

        With ``capabilities.fenced``, which is about the newest entry that is stored:

        * An entry of the same epoch whose index is at or below the newest one is skipped without
          error: that is how an append whose acknowledgement was lost is repeated.
        * If the newest entry has a newer epoch, nothing older is added: ``FencedError``. (A repeat
          of what was stored before the takeover may be skipped instead.)

        Without it entries are stored as they come, and readers sort them out. An entry with index 0
        is then preceded by making its epoch known to :meth:`newest_epoch`. What is older than an
        epoch that the driver happens to know of should be refused, too: ``FencedError``.

        Cancellation: a prefix of the entries is stored, in order and each one whole, or none;
        repeating the call is always safe.

        Args:
            stream: Which stream.
            entries: In order; none is a call without effect. streamq itself keeps each below
                ``capabilities.max_record_bytes``.
            ttl: Time to live from now, by default ``QueueOptions.ttl``. streamq passes a shorter
                one with the record that ends the stream. A repeat sets it again; an append that is
                refused shortens nothing.

        Raises:
            FencedError: A newer epoch has been opened; nothing was added after that.
            StreamNotFoundError: Perhaps, where streams are not fenced: it was deleted since it was
                opened, and only an entry with index 0 makes it again.
        """

    @abc.abstractmethod
    async def read(
        self,
        stream: StreamId,
        after: str,
        *,
        max_records: int,
        max_bytes: int,
        max_wait: float,
    ) -> Sequence[Stored]:
        """Return stored records after a position, oldest first, waiting if there are none.

        Reading never removes anything and may be repeated (``capabilities.replay``). Without that,
        what was read is hidden until it is committed, released, or a time-out of the backend has
        passed, and then comes again; there may be nothing more until then. The wait ends
        as soon as there is one record. A stream that does not exist yet, or has expired, is waited
        for like an empty one.

        With ``capabilities.ordered`` it leaves out nothing: fewer records than both limits allow
        are all whose append had returned when the call began, by whatever process.

        Args:
            stream: Which stream.
            after: A position of this stream, or :data:`START`. If its record is no longer stored,
                reading goes on with the oldest one after it; streamq notices what is missing.
            max_records: Most records to return, at least 1.
            max_bytes: Stop before exceeding this many bytes of data, but always return one record.
            max_wait: Seconds to wait for the first record; 0 returns at once.

        Returns:
            At least one record, or an empty sequence after ``max_wait``.

        Cancellation: nothing is lost; the same call can be repeated.

        Raises:
            CursorError: ``after`` is not a position that this driver could have returned.
        """

    @abc.abstractmethod
    async def describe(self, stream: StreamId, *, last: int = 0) -> StreamInfo:
        """Return what is known of a stream, with its ``last`` newest records.

        Without ``capabilities.replay`` with none of them: looking at them would take them away.

        Everything whose append had returned before the call is reflected, across processes.

        Raises:
            StreamNotFoundError: The stream does not exist, or has expired.
        """

    @abc.abstractmethod
    async def delete(self, stream: StreamId) -> None:
        """Remove a stream and everything in it; no error if there is none.

        Without ``capabilities.erases`` it can no longer be read, listed or described, and its bytes
        go when the backend lets go of them.
        """

    @abc.abstractmethod
    def streams(self, tenant: str, prefix: str = "") -> AsyncIterator[StreamInfo]:
        """Iterate over the streams of a tenant whose name starts with ``prefix``, in any order.

        The prefix is taken literally. None has expired; ``last`` may be empty. A stream that comes
        or goes meanwhile may be left out, and is no error.
        """

    @abc.abstractmethod
    async def aclose(self) -> None:
        """Release everything. Idempotent; a blocked :meth:`read` raises ``ClosedError`` at once."""

    async def commit(self, stream: StreamId, upto: str) -> None:  # noqa: B027 - optional
        """Tell the backend that no reader will ask for records up to ``upto`` again.

        Only backends without replay need it (SQS deletes messages); the default does nothing. The
        position alone has to be enough, in another process too; repeating it is harmless. It
        removes nothing from a stream that has begun again under the name since it was deleted.
        """

    async def release(self, stream: StreamId, after: str) -> None:  # noqa: B027 - optional
        """Give back what was read after a position and will not be committed by this reader.

        Only backends without replay need it, which hide what they have given to one reader from
        the next one for a while; the default does nothing.
        """

    async def newest_epoch(self, stream: StreamId) -> int:
        """Return the largest epoch that has been opened, or is about to be; 0 if there is none.

        Only backends that do not fence need it. An epoch is known here, in every process, before
        the entry with its index 0 can be read: so that a writer whose seal is stored, and that
        finds no larger epoch afterwards, has ended the stream. Every open writer asks about once a
        second (``STREAMQ_CANCEL_SECONDS``); questions of many should be one to the server.

        Raises:
            NotImplementedError: The backend fences.
        """
        raise NotImplementedError(f"backend {self.backend!r} fences; nobody has to ask")

    async def sweep(self) -> int:
        """Remove what has expired and still takes room; return how many streams that were.

        Only for backends that need somebody to do it. The default does nothing: the server does it
        by itself. Any number of processes may call it at the same time.
        """
        return 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()


@dataclass(frozen=True, slots=True)
class QueueOptions:
    """What every queue is opened with, whatever the backend.

    Attributes:
        ttl: How long a stream is kept after its last append, unless that says otherwise.
    """

    ttl: timedelta


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that ``streamq doctor`` looked at.

    Attributes:
        subject: What was looked at, such as ``topic streamq``.
        ok: Whether it is as it should be.
        detail: What was seen.
        remedy: The next step, if it is not; empty otherwise.
    """

    subject: str
    ok: bool
    detail: str
    remedy: str = ""


SettingsT = TypeVar("SettingsT", bound=DriverSettings)


class Driver(abc.ABC, Generic[SettingsT]):
    """Factory of queues for one backend: the object behind the entry point. Never instantiated."""

    name: ClassVar[str]
    """The backend's name, equal to the name of the entry point."""

    summary: ClassVar[str]
    """One line for tables."""

    capabilities: ClassVar[Capabilities]
    """What queues of this driver promise at best; readable without connecting to anything."""

    settings_type: ClassVar[type[DriverSettings]]
    """The driver's settings class, with the environment prefix ``STREAMQ_<NAME>_``."""

    @classmethod
    @abc.abstractmethod
    async def open(cls, options: QueueOptions, settings: SettingsT) -> ChunkQueue:
        """Connect, and prove that the backend answers.

        Raises:
            BackendUnavailableError: It cannot be reached, or, as ``ThrottledError``, is asked too
                much; only that is tried again by whoever opens a queue.
            AccessDeniedError: It refuses our credentials.
            ConfigurationError: The settings contradict each other or what the backend can do.
        """

    @classmethod
    async def examine(cls, options: QueueOptions, settings: SettingsT) -> Sequence[Finding]:
        """Look at what :meth:`open` needs on the server, and at what people get wrong there.

        Changes nothing. The default opens a queue and closes it again.

        Raises:
            StreamqError: It cannot even be looked at: as for :meth:`open`.
        """
        await (await cls.open(options, settings)).aclose()
        return (Finding("server", True, "it answers and can carry streams"),)

    @classmethod
    async def provision(cls, options: QueueOptions, settings: SettingsT) -> Sequence[str]:
        """Create what :meth:`examine` misses, as far as a client can; what is there stays as it is.

        Returns:
            What was created, one line each. The default creates nothing: nothing has to be.

        Raises:
            StreamqError: It could not be created.
        """
        return ()

    @classmethod
    def embedded(cls, settings: SettingsT) -> AbstractContextManager[Mapping[str, str]] | None:
        """Return a small real server for demos, if the driver brings one and none is configured.

        Entering the result starts the server and gives the environment variables that lead to it;
        leaving stops it. :class:`streamq.devserver.DevServer` does most of the work.
        """
        return None


AnyDriver = type[Driver[Any]]

__all__ = [
    "BEFORE_ALL",
    "START",
    "AccessDeniedError",
    "AnyDriver",
    "BackendError",
    "BackendUnavailableError",
    "Calls",
    "Capabilities",
    "ChunkQueue",
    "ClosedError",
    "ConfigurationError",
    "CursorError",
    "Driver",
    "DriverSettings",
    "Entry",
    "ErrorRule",
    "ErrorTable",
    "FencedError",
    "Finding",
    "LatencyClass",
    "QueueOptions",
    "RetryPolicy",
    "SealedError",
    "SingleFlight",
    "StorageFullError",
    "Stored",
    "StreamId",
    "StreamInfo",
    "StreamNotFoundError",
    "StreamqError",
    "Tap",
    "TapBudget",
    "ThrottledError",
    "closed_error",
    "decode_position",
    "encode_position",
    "exception_classes",
    "mask_credentials",
    "new_entries",
    "to_the_end",
    "together",
    "translated_errors",
    "within_bounds",
]
