"""Sabotaged drivers that handle failures wrongly, or raise the wrong errors."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Self

from streamq.driver import (
    AccessDeniedError,
    BackendError,
    BackendUnavailableError,
    ClosedError,
    Entry,
    QueueOptions,
    StorageFullError,
    Stored,
    StreamId,
    StreamInfo,
    StreamNotFoundError,
    StreamqError,
)

from .server import CAPABILITIES, SabotagedSettings, SoundQueue, checks


class DoesNotReconnect(SoundQueue):
    """Keeps a lost connection."""

    caught_by = checks("""
        connection_that_dropped_while_idle_is_replaced open_queues_heal_after_a_restart
        read_that_is_blocked_when_its_connection_drops_fails_or_continues
        reader_notices_a_restart_only_if_records_were_lost
        stream_is_delivered_once_through_dropped_connections
    """)

    @contextmanager
    def translated(self, stream: StreamId | None) -> Iterator[None]:
        link = self._link
        try:
            with super().translated(stream):
                yield
        finally:
            self._link = self._link or link


class ListensToDeadConnection(SoundQueue):
    """Continues to wait when the connection of a waiting read is lost."""

    caught_by = checks("""
        read_that_is_blocked_when_its_connection_drops_fails_or_continues
        reader_notices_a_restart_only_if_records_were_lost
        stream_is_delivered_once_through_dropped_connections
    """)

    async def read(
        self, stream: StreamId, after: str, *, max_records: int, max_bytes: int, max_wait: float
    ) -> Sequence[Stored]:
        try:
            return await super().read(
                stream, after, max_records=max_records, max_bytes=max_bytes, max_wait=max_wait
            )
        except BackendUnavailableError as exc:
            if isinstance(exc.__cause__, ClosedError):
                await asyncio.sleep(max_wait)
                return []
            raise


class HangsWithTheServer(SoundQueue):
    """Waits for an answer without a deadline."""

    caught_by = checks("every_call_to_a_server_that_hangs_ends_in_time")

    deadline = None


class TakesSlowForDead(SoundQueue):
    """Has a deadline that suits only a server on the same machine."""

    caught_by = checks("slow_backend_is_neither_an_error_nor_a_cause_of_disorder")

    deadline = 0.05


class ForgetsAtRestart(SoundQueue):
    """Stores records in memory and declares them durable."""

    caught_by = checks("acknowledged_records_survive_a_restart")

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self.server.at_restart.append(self._forget)

    def _forget(self) -> None:
        for stream in self.server.disk.names():
            self.server.disk.remove(stream)


class ForgetsNewestAtRestart(SoundQueue):
    """Acknowledges records before they are on the disk; a restart loses the last one."""

    caught_by = checks("acknowledged_records_survive_a_restart")

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self.server.at_restart[:] = [self._forget]

    def _forget(self) -> None:
        for stream in self.server.disk.names():
            self.server.forget(stream, slice(-1, None))


class ForgetsWhatItsConnectionWrote(SoundQueue):
    """Keeps records for as long as the connection that wrote them."""

    caught_by = checks("records_outlive_the_connections")

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self._written: set[StreamId] = set()

    def altered(self, stream: StreamId, entries: list[Entry]) -> list[Entry]:
        self._written.add(stream)
        return entries

    async def aclose(self) -> None:
        for stream in self._written:
            self.server.disk.remove(stream)
        await super().aclose()


class RaisesKeyError(SoundQueue):
    """Raises a KeyError for a stream that does not exist."""

    caught_by = checks("""
        append_can_shorten_the_ttl_and_the_next_one_restores_it append_of_nothing_has_no_effect
        attempt_that_wrote_nothing_is_counted_without_a_reset
        delete_and_append_at_the_same_time_leave_a_sound_stream
        delete_removes_the_stream_for_everyone describe_and_delete_go_beyond_a_page_of_the_server
        describe_of_a_missing_stream_raises errors_of_the_backend_are_errors_of_streamq
        expired_stream_is_gone_by_every_path reader_of_a_deleted_stream_gets_an_error
        repeated_append_sets_the_shorter_ttl_again sealed_stream_expires_by_its_own_ttl
        stream_expires_after_its_ttl sweep_leaves_nothing_of_several_large_streams
        sweep_removes_expired_streams_only
        what_another_connection_has_deleted_is_gone_for_every_call
    """)

    async def describe(self, stream: StreamId, *, last: int = 0) -> StreamInfo:
        try:
            return await super().describe(stream, last=last)
        except StreamNotFoundError as exc:
            if last:
                raise
            raise KeyError(stream) from exc


class TakesMissingForUnavailable(SoundQueue):
    """Reports a missing stream as an unavailable backend."""

    caught_by = checks("""
        append_can_shorten_the_ttl_and_the_next_one_restores_it append_of_nothing_has_no_effect
        attempt_that_wrote_nothing_is_counted_without_a_reset
        delete_and_append_at_the_same_time_leave_a_sound_stream
        delete_removes_the_stream_for_everyone describe_and_delete_go_beyond_a_page_of_the_server
        describe_of_a_missing_stream_raises expired_stream_is_gone_by_every_path
        reader_of_a_deleted_stream_gets_an_error repeated_append_sets_the_shorter_ttl_again
        sealed_stream_expires_by_its_own_ttl stream_expires_after_its_ttl
        sweep_leaves_nothing_of_several_large_streams sweep_removes_expired_streams_only
        what_another_connection_has_deleted_is_gone_for_every_call
    """)

    async def describe(self, stream: StreamId, *, last: int = 0) -> StreamInfo:
        try:
            return await super().describe(stream, last=last)
        except StreamNotFoundError as exc:
            if last:
                raise
            raise BackendUnavailableError("no", backend=self.backend, stream=str(stream)) from exc


class RaisesErrorOfItsClient(SoundQueue):
    """Raises the client's own error when the connection is lost."""

    caught_by = checks("""
        connection_that_dropped_while_idle_is_replaced open_queues_heal_after_a_restart
        read_that_is_blocked_when_its_connection_drops_fails_or_continues
        reader_notices_a_restart_only_if_records_were_lost
        stream_is_delivered_once_through_dropped_connections
    """)

    @contextmanager
    def translated(self, stream: StreamId | None) -> Iterator[None]:
        try:
            with super().translated(stream):
                yield
        except BackendUnavailableError as exc:
            if isinstance(exc.__cause__, ClosedError):
                raise ConnectionResetError("connection reset by peer") from exc
            raise


class RaisesErrorOfItsClientAtOpen(SoundQueue):
    """Raises the client's own error when no server listens."""

    caught_by = checks("""
        every_call_to_a_server_that_hangs_ends_in_time unreachable_server_is_reported_at_open
    """)

    @classmethod
    async def connect(cls, options: QueueOptions, settings: SabotagedSettings) -> Self:
        try:
            return await super().connect(options, settings)
        except BackendUnavailableError as exc:
            raise ConnectionRefusedError("connection refused") from exc


class OpensWithoutConnecting(SoundQueue):
    """Opens without connecting, so that a wrong address is reported later."""

    caught_by = checks("""
        every_call_to_a_server_that_hangs_ends_in_time unreachable_server_is_reported_at_open
    """)

    @classmethod
    async def connect(cls, options: QueueOptions, settings: SabotagedSettings) -> Self:
        try:
            return await super().connect(options, settings)
        except BackendUnavailableError:
            await asyncio.sleep(3_600)
            raise


class _Errors(SoundQueue):
    """Changes errors before they are raised."""

    def changed(self, error: StreamqError) -> StreamqError:
        raise NotImplementedError

    @contextmanager
    def translated(self, stream: StreamId | None) -> Iterator[None]:
        try:
            with super().translated(stream):
                yield
        except StreamqError as exc:
            raise self.changed(exc) from exc.__cause__


class DoesNotSayWhichStream(_Errors):
    """Leaves the stream out of its errors."""

    caught_by = checks("""
        full_backend_is_reported_keeps_its_records_and_recovers
        describe_of_a_missing_stream_raises errors_of_the_backend_are_errors_of_streamq
        stale_epoch_is_fenced
    """)

    def changed(self, error: StreamqError) -> StreamqError:
        error.stream = None
        return error


class DoesNotSayWhichBackend(_Errors):
    """Leaves the backend out of its errors."""

    caught_by = checks("""
        full_backend_is_reported_keeps_its_records_and_recovers
        describe_of_a_missing_stream_raises errors_of_the_backend_are_errors_of_streamq
        read_only_backend_is_reported stale_epoch_is_fenced invalid_position_is_refused
    """)

    def changed(self, error: StreamqError) -> StreamqError:
        error.backend = None
        return error


class TakesFullForUnavailable(_Errors):
    """Reports a full disk as an unavailable server, so that callers retry."""

    caught_by = checks("full_backend_is_reported_keeps_its_records_and_recovers")

    def changed(self, error: StreamqError) -> StreamqError:
        if isinstance(error, StorageFullError):
            return BackendUnavailableError("no", backend=error.backend, stream=error.stream)
        return error


class TellsThePassword(SoundQueue):
    """Includes the refused password in its error."""

    caught_by = checks("refused_credentials_are_reported_without_the_secret")

    @classmethod
    async def connect(cls, options: QueueOptions, settings: SabotagedSettings) -> Self:
        try:
            return await super().connect(options, settings)
        except AccessDeniedError as exc:
            password = settings.password.get_secret_value()
            raise AccessDeniedError(f"{password!r} is wrong", backend=cls.backend) from exc


class TellsThePasswordInTheCause(SoundQueue):
    """Has no password in its own message, but in that of the chained client error."""

    caught_by = checks("refused_credentials_are_reported_without_the_secret")

    @classmethod
    async def connect(cls, options: QueueOptions, settings: SabotagedSettings) -> Self:
        try:
            return await super().connect(options, settings)
        except AccessDeniedError as exc:
            exc.__cause__ = ValueError(settings.password.get_secret_value())
            raise


class TakesRefusalForOutage(SoundQueue):
    """Reports a wrong password as an unavailable server."""

    caught_by = checks("refused_credentials_are_reported_without_the_secret")

    @classmethod
    async def connect(cls, options: QueueOptions, settings: SabotagedSettings) -> Self:
        try:
            return await super().connect(options, settings)
        except AccessDeniedError as exc:
            raise BackendUnavailableError("no", backend=cls.backend) from exc


class IgnoresThatNothingIsWritten(SoundQueue):
    """Ignores that the server is read-only."""

    caught_by = checks("read_only_backend_is_reported")

    async def append(
        self, stream: StreamId, entries: Sequence[Entry], *, ttl: timedelta | None = None
    ) -> None:
        self.check_open(stream)
        if not self.settings.replica:
            await super().append(stream, entries, ttl=ttl)


class IgnoresThatNothingIsDeleted(SoundQueue):
    """Ignores that the server refuses to delete."""

    caught_by = checks("read_only_backend_is_reported")

    async def delete(self, stream: StreamId) -> None:
        self.check_open(stream)
        if not self.settings.replica:
            await super().delete(stream)


class DeclaresMoreThanARecordHolds(SoundQueue):
    """Declares twice the real size of a record."""

    caught_by = checks("""
        full_backend_is_reported_keeps_its_records_and_recovers
        largest_chunk_passes_and_a_larger_one_is_refused largest_declared_record_fits
    """)

    max_bytes = CAPABILITIES.max_record_bytes // 2


class RefusesAtTheLimit(SoundQueue):
    """Refuses a record of exactly the size that it declares."""

    caught_by = checks("""
        full_backend_is_reported_keeps_its_records_and_recovers largest_declared_record_fits
    """)

    max_bytes = CAPABILITIES.max_record_bytes - 1


class AsksToRepeatWhatIsTooLarge(_Errors):
    """Reports a record that is too large as an unavailable server, so that it is sent for ever."""

    caught_by = checks("record_past_the_limit_is_stored_whole_or_refused")

    def changed(self, error: StreamqError) -> StreamqError:
        if type(error) is BackendError:
            return BackendUnavailableError("no", backend=error.backend, stream=error.stream)
        return error
