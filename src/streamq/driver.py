"""The contract for driver authors: the duties of a backend, and the duties that streamq itself has.

A driver is small: it makes one round trip and reports. Packing, sequencing, batching, retry,
deduplication, endings and capability checks live once, in streamq itself. A driver never retries,
never swallows an error and never interprets the bytes that it stores. (:class:`RetryPolicy` is for
other features of a plugin.)

Parts that several drivers need are here, too. Every driver writes what two of them do:
:class:`Guard` for each call (closed, too late, failed) and :class:`ConnectOnce` for the connection.
Then there are :func:`batches` for appending, :class:`Tap` and :func:`within_bounds` for reading,
:func:`stored_stream` and :func:`skip_foreign` for listing, :class:`ErrorTable`,
:class:`translated_errors` and :func:`for_stream` for errors,
:class:`SingleFlight`, :class:`OneThread`, :func:`together` and :func:`to_the_end` for what is under
way, :class:`Closing` and :func:`close_all` for the end, :class:`TemporalTarget` and
:func:`leaving_sdk` for Temporal, :class:`CredentialSource` and :func:`importing_named_code` for
what settings name, :func:`mask_credentials`, :func:`seen_value` and :func:`terminal_text` for what
is shown. A driver may use them or not.

Errors, settings and the parts are imported from here as well; ``help()`` of each has its text, and
``docs/contract.md`` the list.

A driver package registers a :class:`Driver` subclass under its backend name in the entry point
group ``streamq.drivers``.

Design: docs/design/contract.md.
"""

from __future__ import annotations

import abc
import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar, Generic, Self, TypeVar

from ._capabilities import Capabilities, LatencyClass

# Errors, settings and parts, which drivers import from here: "as" exports a name. They are not in
# __all__, so that help(streamq.driver) is the contract.
# isort: off
from ._errors import (
    AccessDeniedError as AccessDeniedError,
    BackendError as BackendError,
    BackendUnavailableError as BackendUnavailableError,
    ClosedError as ClosedError,
    ConfigurationError as ConfigurationError,
    CursorError as CursorError,
    FencedError as FencedError,
    ForeignLoopError as ForeignLoopError,
    SealedError as SealedError,
    StorageFullError as StorageFullError,
    StreamNotFoundError as StreamNotFoundError,
    StreamqError as StreamqError,
    ThrottledError as ThrottledError,
)
from ._events import StreamId as StreamId
from ._retry import RetryPolicy as RetryPolicy
from ._settings_base import DriverSettings as DriverSettings
from .driver_parts._batches import batches as batches
from .driver_parts._bounds import within_bounds as within_bounds
from .driver_parts._cleanup import (
    Closing as Closing,
    close_all as close_all,
    to_the_end as to_the_end,
)
from .driver_parts._client_errors import (
    ErrorRule as ErrorRule,
    ErrorTable as ErrorTable,
    exception_classes as exception_classes,
    for_stream as for_stream,
    translated_errors as translated_errors,
)
from .driver_parts._connect_once import ConnectOnce as ConnectOnce
from .driver_parts._credential_source import (
    CredentialCall as CredentialCall,
    CredentialSource as CredentialSource,
)
from .driver_parts._credentials import (
    mask_credentials as mask_credentials,
    mask_data as mask_data,
    mask_value as mask_value,
    seen_value as seen_value,
)
from .driver_parts._guard import Guard as Guard
from .driver_parts._home import Home as Home
from .driver_parts._home import guard_calls as _guard_calls
from .driver_parts._named_code import importing_named_code as importing_named_code
from .driver_parts._one_thread import OneThread as OneThread
from .driver_parts._position import (
    BEFORE_ALL as BEFORE_ALL,
    decode_position as decode_position,
    encode_position as encode_position,
)
from .driver_parts._single_flight import SingleFlight as SingleFlight
from .driver_parts._stored_names import skip_foreign as skip_foreign, stored_stream as stored_stream
from .driver_parts._tap import Tap as Tap, TapBudget as TapBudget
from .driver_parts._temporal_target import (
    TemporalEndpoint as TemporalEndpoint,
    TemporalTarget as TemporalTarget,
    leaving_sdk as leaving_sdk,
)
from .driver_parts._terminal_text import (
    TerminalTextStream as TerminalTextStream,
    terminal_text as terminal_text,
)
from .driver_parts._together import together as together
from .driver_parts._usual_errors import (
    closed_error as closed_error,
    fenced_error as fenced_error,
    foreign_position as foreign_position,
    not_found_error as not_found_error,
)
# isort: on

START = ""
"""The position before the first record of any stream."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A record to be stored.

    ``(epoch, index)`` identifies it within its stream and orders it: entries of one epoch have a
    growing index, and a larger epoch supersedes every smaller one.

    Attributes:
        epoch: Which run of the producer wrote it, 1 to 2**63-1. Epochs are compared as numbers.
        index: Place within the epoch, 0 to 2**63-1; it grows, not always by one. 0 is the record
            that opens the epoch and fences older ones. Indexes are compared as numbers.
        data: The bytes to store, opaque to the driver: any bytes, also none. streamq itself makes
            no entry of more than ``capabilities.max_record_bytes``.
    """

    epoch: int
    index: int
    data: bytes


def new_entries(
    entries: Sequence[Entry], newest: tuple[int, int], *, backend: str, stream: StreamId
) -> list[Entry]:
    """Return the entries that are still to be stored, by the rules of :meth:`ChunkQueue.append`.

    For drivers that fence by themselves; call it within the transaction or lock that makes the
    append atomic. It checks all entries before it returns: if it raises, none has been stored.

    Args:
        entries: The entries to append.
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
            raise fenced_error(backend, stream, epoch=entry.epoch, newest=newest[0])
        if (entry.epoch, entry.index) > newest:
            fresh.append(entry)
            newest = (entry.epoch, entry.index)
    return fresh


@dataclass(frozen=True, slots=True)
class StreamAppend:
    """One append among several: the arguments of :meth:`ChunkQueue.append`.

    Attributes:
        stream: Which stream.
        entries: In order.
        ttl: Time to live from now; ``None`` for ``QueueOptions.ttl``.
    """

    stream: StreamId
    entries: Sequence[Entry]
    ttl: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """A record as read.

    Attributes:
        position: The place after this record, where reading continues: short, printable,
            meaningful to this driver only, valid later and in other processes. No two records of a
            stream have the same one. It has at most 1,024 characters, without
            ``capabilities.replay`` at most 16,384.
        data: Exactly the bytes that were appended.
    """

    position: str
    data: bytes


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """Information that a backend has about a stream without reading it.

    Attributes:
        stream: Which stream.
        last: The newest records, newest first, as many as were requested and exist.
        records: How many records are stored, if cheap to know; ``None`` rather than an estimate.
        size_bytes: How much they take, if cheap to know; an estimate will do, from half of the
            bytes that were appended to four times as many.
        expires_in: Time until the stream expires or, without ``capabilities.expires``, until a
            sweep may remove it (0 if it is due); ``None`` if neither is known.
        attempts: How many epochs have been opened, if the backend counts them; needed only without
            ``capabilities.replay``, where streamq cannot count them.
    """

    stream: StreamId
    last: tuple[Stored, ...] = ()
    records: int | None = None
    size_bytes: int | None = None
    expires_in: timedelta | None = None
    attempts: int | None = None


class ChunkQueue(abc.ABC):
    """An open connection to a backend. Safe to use from many tasks of one event loop.

    It belongs to the event loop and the process in which it was made. Elsewhere every call raises
    :class:`~streamq.ForeignLoopError` at once; this class sees to that for every driver.

    Every method raises errors of :mod:`streamq` only: :class:`~streamq.BackendUnavailableError`
    when the backend cannot be reached or does not answer, :class:`~streamq.ThrottledError` when it
    accepts no more requests for now, :class:`~streamq.AccessDeniedError` for credentials and
    permissions, :class:`~streamq.StorageFullError` when it has no room,
    :class:`~streamq.BackendError` for any other answer, and :class:`~streamq.ClosedError` after
    :meth:`aclose`. Each error has the driver's name as ``backend`` and, if the call has one, the
    stream as ``stream``. No error shows a secret, neither in its text nor in that of its causes.

    No call waits for ever: it ends within a deadline of the driver's own, also if the server keeps
    the connection and answers nothing; a read has its ``max_wait`` in addition. streamq gives up
    after ``STREAMQ_OPERATION_SECONDS``; a driver should be quicker. After an outage the queue works
    again by itself: a call on a connection that is broken fails with ``BackendUnavailableError`` at
    most, and a later one connects anew. Closing one queue leaves the others alone.

    A cancelled call ends with ``CancelledError`` at the await where it stood, and the queue can be
    used as before: no lock stays held, and no answer reaches another call.
    """

    backend: str
    """The driver's name, for messages: :attr:`Driver.name`. Mandatory."""

    capabilities: Capabilities
    """The capabilities of this queue: those of its driver, or fewer. Mandatory.

    A queue declares less where its server is configured for less, never more.
    """

    hidden_seconds: float = 0.0
    """Longest time for which records that a reader took stay hidden from others after it died.

    0 where reading hides nothing (``capabilities.replay``).
    """

    home: Home
    """The event loop and process of this queue. This class sets it; a driver leaves it alone."""

    def __new__(cls, *args: object, **options: object) -> Self:
        queue = super().__new__(cls)
        queue.home = Home("queue", backend=getattr(cls, "backend", None))
        return queue

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        _guard_calls(cls)

    @abc.abstractmethod
    async def append(
        self, stream: StreamId, entries: Sequence[Entry], *, ttl: timedelta | None = None
    ) -> None:
        """Store entries, in order, durably as far as declared, and make blocked readers see them.

        The first entry creates the stream. From then on it has a time to live
        (``capabilities.expires``), which every append renews, atomically with storing the entries:
        a producer that dies right after its first record leaves nothing behind for ever.

        When it returns, every entry can be read and described, in every process. Readers are woken
        after the entries can be read, never before. What is stored is exactly the bytes of the
        entries, one record for each. Other tasks of the event loop run before it returns, also if
        it need not wait: a producer that never pauses must not keep its own readers waiting.

        With ``capabilities.fenced`` every entry is compared with the newest one that is stored:

        * An entry of the same epoch whose index is at or below the newest one is skipped without
          error: an append whose acknowledgement was lost is repeated that way.
        * If the newest entry has a newer epoch, nothing older is added: ``FencedError``. (A repeat
          of an entry that was stored before the takeover may be skipped instead.)
        * Comparing and storing is one step, for writers in other processes as well.

        Without it entries are stored as they come, and readers drop stale ones. Before an entry
        with index 0 is stored, its epoch is made known to :meth:`newest_epoch`. An entry older than
        an epoch that the driver happens to know should be refused as well: ``FencedError``.

        Cancellation: a prefix of the entries is stored, in order and each one whole, or none;
        repeating the call is always safe.

        An append that raises leaves the same behind: nothing, a prefix, or everything. streamq
        repeats it with the same entries if the error is ``retryable``. An entry above
        ``capabilities.max_record_bytes`` is stored whole or refused with an error that is not.

        Size: streamq has one append of a stream under way at a time. It stops adding records when
        an append has reached 1 MiB; most have one record, none more than a few hundred.

        Args:
            stream: Which stream.
            entries: In order; a call with none has no effect. streamq itself keeps each at or below
                ``capabilities.max_record_bytes``.
            ttl: Time to live from now, by default ``QueueOptions.ttl``. streamq passes a shorter
                one with the record that ends the stream. With a quota of the tenant it passes one
                with each append. A repeat sets it again; an append that is refused does not
                shorten it.

        Raises:
            FencedError: A newer epoch has been opened; nothing was added after that.
            StorageFullError: There is no room. A prefix may be stored; what was stored before can
                be read, and appending works again once there is room.
            StreamNotFoundError: Allowed where streams are not fenced: the stream was deleted since
                it was opened, and only an entry with index 0 creates it again.
        """

    async def append_many(self, appends: Sequence[StreamAppend]) -> Sequence[StreamqError | None]:
        """Make appends to several streams at the same time; return how each of them ended.

        Each is an :meth:`append` of its own, and one that fails leaves the others as they are.

        Optional: the default calls :meth:`append` for each. streamq calls it only where a driver
        implements it, with all that its writers have ready, one append of each stream. It pays
        where one request carries entries of many streams, and none of them holds up the others.

        Cancellation: every append is left as a cancelled :meth:`append` leaves it.

        Size: streamq hands over at most 1,000 appends, and adds none beyond 4 MiB.

        Args:
            appends: Of different streams; none has no effect.

        Returns:
            For each append, in order, ``None`` if :meth:`append` would have returned, or else the
            error that it would have raised.

        Raises:
            StreamqError: The error of every append, such as ``ClosedError``.
        """
        ended = await asyncio.gather(
            *(self.append(each.stream, each.entries, ttl=each.ttl) for each in appends),
            return_exceptions=True,
        )
        outcomes: list[StreamqError | None] = []
        for outcome in ended:
            if isinstance(outcome, BaseException) and not isinstance(outcome, StreamqError):
                raise outcome
            outcomes.append(outcome)
        return outcomes

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

        Reading never removes anything and may be repeated (``capabilities.replay``). Without that
        capability, records that were read are hidden until they are committed; if they are released
        or a time-out of the backend passes first, they are delivered again. The backend may deliver
        nothing more until then, or fewer records than both limits allow. The same call, repeated by
        whichever process, may be given the same records at once, as after an answer that was lost.
        The wait ends as soon as there is one record. A stream that does not exist yet, or has
        expired, is waited for like an empty one. An append to another stream does not end the wait.
        Hundreds of reads may wait at the same time.

        With ``capabilities.ordered`` no record is left out: if fewer are returned than both limits
        allow, they are all whose append had returned, in any process, when the call began. streamq
        takes such a page for the end of the stream.

        Size: a reader requests 256 records and 1 MiB, and waits for up to 20 seconds. A takeover
        and a sweep request 1,000 records, 4 MiB or twice ``capabilities.max_record_bytes``, and do
        not wait.

        Args:
            stream: Which stream.
            after: A position of this stream, or :data:`START`. If its record is no longer stored,
                reading continues with the oldest one after it; streamq detects what is missing.
            max_records: Most records to return, at least 1.
            max_bytes: Stop before exceeding this many bytes of data, but always return one record.
            max_wait: Seconds to wait for the first record; 0 returns at once.

        Returns:
            At least one record, or an empty sequence after ``max_wait``, never earlier.

        Cancellation: nothing is lost; the same call can be repeated.

        Raises:
            CursorError: ``after`` is not a position that this driver could have returned.
        """

    @abc.abstractmethod
    async def describe(self, stream: StreamId, *, last: int = 0) -> StreamInfo:
        """Return what is known of a stream, with its ``last`` newest records.

        If fewer records are stored, all of them are returned. A stream that exists has a record,
        so ``last`` of 1 or more never gives none. Without ``capabilities.replay`` no records are
        returned: reading them would hide them.

        Every entry whose append had returned before the call is reflected, across processes.

        Cost: a number of round trips that does not grow with the stream, whatever ``last`` is; it
        may not read the stream from its beginning. streamq calls it twice for each attempt that
        opens a stream, once for a reader at the tail and for each stream of a sweep, and every five
        seconds, with ``last`` 0, for a reader that nothing reaches. ``last`` is 4 and, where these
        do not show where the newest attempt began, 32, 256 and so on.

        Cancellation: it has changed nothing.

        Raises:
            StreamNotFoundError: The stream does not exist, or has expired.
        """

    @abc.abstractmethod
    async def delete(self, stream: StreamId) -> None:
        """Remove a stream and everything in it; no error if it does not exist.

        When it returns, the stream can no longer be read, listed or described, in any process. Its
        name can be used again, with any epoch: the fence is removed as well. Without
        ``capabilities.erases`` the backend removes its bytes later.

        Cancellation and errors: the stream is removed, or not, or in part; repeating the call
        removes the rest.
        """

    @abc.abstractmethod
    def streams(self, tenant: str, prefix: str = "") -> AsyncIterator[StreamInfo]:
        """Iterate over the streams of a tenant whose name starts with ``prefix``, in any order.

        The prefix is taken literally. Each stream comes once, however many there are. No stream of
        another tenant is among them. None of the streams has expired; ``last`` may be empty. A
        stream that is created or removed meanwhile may be left out, and is no error. Neither is an
        entry that streamq did not store, or whose name it does not take: it is skipped with one
        line in the log (:func:`stored_stream`), here, in :meth:`sweep` and for blocked readers.

        Cost: one request for each page of the backend; streams are not read for it. streamq may
        take minutes between two of them, and makes other calls meanwhile.

        Cancellation: it has changed nothing; nothing of an iteration that was left stays open.
        """

    @abc.abstractmethod
    async def aclose(self) -> None:
        """Release everything. Idempotent; a blocked :meth:`read` raises ``ClosedError`` at once.

        No task, thread, connection or file of the queue is left. An append that is under way ends
        at once, with its outcome or an error. Every later call raises ``ClosedError``. It limits
        its own duration.

        Cancellation: everything is released all the same, at the latest soon after the call has
        been left, however often it is cancelled, also at every await. A second call, concurrent or
        later, waits for that.
        """

    def abandon(self) -> None:  # noqa: B027 - optional
        """Release what needs no event loop, because the queue's own has ended without ``aclose``.

        Called in any loop or thread, or in a forked child, by ``aclose``. For drivers with threads
        of their own; sockets of a loop that has ended are closed with the last reference to them.
        In a child it must not touch what belongs to the parent.
        """

    async def commit(self, stream: StreamId, upto: str) -> None:  # noqa: B027 - optional
        """Acknowledge records up to ``upto``: no reader will request them again.

        Only backends without replay need it (SQS deletes messages); the default does nothing. The
        position alone has to suffice, in another process too; repeating it is harmless. If the
        stream was deleted and began again under the same name, nothing of the new one is removed.

        Cancellation and errors: the records are acknowledged, or not, or some of them; those that
        are not come again, and are committed again.

        Args:
            stream: Which stream.
            upto: The position of the last record to acknowledge.

        Raises:
            CursorError: ``upto`` is of a stream that was deleted since.
        """

    async def release(self, stream: StreamId, after: str) -> None:  # noqa: B027 - optional
        """Release records that were read after a position and that this reader will not commit.

        Only backends without replay need it, which hide the records that one reader took from
        others for a while; the default does nothing. Records that are not released come again
        later, after at most :attr:`hidden_seconds`.
        """

    async def newest_epoch(self, stream: StreamId) -> int:
        """Return the largest epoch that has been opened or is about to be; 0 if there is none.

        Only backends that do not fence need it. An epoch is returned here, in every process, before
        the entry with its index 0 can be read. So a writer whose seal is stored, and that finds no
        larger epoch afterwards, has ended the stream. Every open writer calls this about once a
        second (``STREAMQ_CANCEL_SECONDS``); a driver should combine the calls of many writers into
        one request to the server. A deleted stream has none: 0.

        Raises:
            NotImplementedError: The backend fences.
        """
        raise NotImplementedError(f"backend {self.backend!r} fences; it has no use for this call")

    async def sweep(self) -> int:
        """Remove expired streams that still take room; return how many were removed.

        Only for backends that do not do so by themselves; the default does nothing. Any number of
        processes may call it at the same time. A stream that has not expired is not touched, even
        if it is appended to meanwhile. Nothing of an expired one is left in the backend.

        Cancellation and errors: some of the streams are removed; the next call removes the rest.
        """
        return 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await close_all(self.aclose)


@dataclass(frozen=True, slots=True)
class QueueOptions:
    """Options that every queue is opened with, on every backend.

    Attributes:
        ttl: How long a stream is kept after its last append, unless the append sets another time.
    """

    ttl: timedelta


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that ``streamq doctor`` examined.

    Attributes:
        subject: What was examined, such as ``topic streamq``.
        ok: Whether it is as it should be. Not, if a promise of the queue does not hold.
        detail: What was found.
        remedy: The next step if it is not ok or a warning; empty otherwise.
        is_warning: It works, and does not survive a fault that an operator expects it to survive.
    """

    subject: str
    ok: bool
    detail: str
    remedy: str = ""
    is_warning: bool = False


SettingsT = TypeVar("SettingsT", bound=DriverSettings)


class Driver(abc.ABC, Generic[SettingsT]):
    """Factory of queues for one backend: the object behind the entry point. Never instantiated."""

    name: ClassVar[str]
    """The backend's name, equal to the name of the entry point: one lower-case word. Mandatory."""

    summary: ClassVar[str]
    """One line for tables. Mandatory."""

    capabilities: ClassVar[Capabilities]
    """The best that queues of this driver promise; readable without connecting to anything.

    Mandatory. What is not declared is refused where a caller requires it.
    """

    settings_type: ClassVar[type[DriverSettings]]
    """The driver's settings class, with the environment prefix ``STREAMQ_<NAME>_``. Mandatory.

    Its ``toml_table`` is the driver's name, and every field has a description.
    """

    @classmethod
    @abc.abstractmethod
    async def open(cls, options: QueueOptions, settings: SettingsT) -> ChunkQueue:
        """Connect, and prove that the backend answers.

        Cancellation, at any await and however often, and errors: nothing is left, neither task nor
        thread, connection or file.

        Raises:
            BackendUnavailableError: It cannot be reached; or, as ``ThrottledError``, it accepts no
                more requests for now. streamq retries opening after a ``ThrottledError`` only.
            AccessDeniedError: It refuses our credentials.
            ConfigurationError: The settings contradict each other or what the backend can do.
        """

    @classmethod
    async def examine(cls, options: QueueOptions, settings: SettingsT) -> Sequence[Finding]:
        """Examine what :meth:`open` needs on the server, and what is often misconfigured there.

        Changes nothing. The default opens a queue and closes it again.

        Raises:
            StreamqError: The server cannot be examined: as for :meth:`open`.
        """
        await (await cls.open(options, settings)).aclose()
        return (Finding("server", True, "it answers and can carry streams"),)

    @classmethod
    async def provision(cls, options: QueueOptions, settings: SettingsT) -> Sequence[str]:
        """Create what :meth:`examine` finds missing, as far as a client can; change nothing else.

        Returns:
            What was created, one line each. The default creates nothing, for backends that need
            nothing created.

        Raises:
            StreamqError: Something could not be created.
        """
        return ()

    @classmethod
    def embedded(cls, settings: SettingsT) -> AbstractContextManager[Mapping[str, str]] | None:
        """Return a small real server for demos, if the driver has one and none is configured.

        Entering the result starts the server and returns the environment variables with its
        address; leaving stops it. :class:`streamq.devserver.DevServer` does most of the work.
        """
        return None


AnyDriver = type[Driver[Any]]

__all__ = [
    "START",
    "AnyDriver",
    "Capabilities",
    "ChunkQueue",
    "Driver",
    "Entry",
    "Finding",
    "LatencyClass",
    "QueueOptions",
    "Stored",
    "StreamAppend",
    "StreamInfo",
    "new_entries",
]
