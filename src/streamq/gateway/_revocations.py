"""Knows which tokens were revoked, and ends the connections that were opened with them.

One task reads the log of revocations in the backend from its beginning, and then waits for what is
new. A gateway that cannot read it refuses tokens after a while, since any of them may be revoked.

Design: docs/design/access.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import defaultdict
from collections.abc import Iterator
from typing import Never, Protocol

from streamq._errors import CapabilityError, QuotaError, StreamqError
from streamq._settings import Settings
from streamq.access import InvalidTokenError, Rights
from streamq.access._revocation_log import LogPlace, RevocationLog, can_keep_revocations
from streamq.access._revocations import Revocation, RevokedTokens, keys_of
from streamq.driver import ChunkQueue

from ._log_limit import gateway_logger

_logger = gateway_logger()

EFFECTIVE_SECONDS = 2.0
"""Within this time connections end on gateways that reach the backend."""

MOST_OF_A_TENANT = 10_000
"""Most revocations of one tenant that requests may add: every gateway has all in memory."""

REVOKED, UNKNOWN = "revoked", "revocations_unknown"
"""Why a connection ends."""

_LONGEST_WAIT_SECONDS = 10.0
_LOAD_SECONDS = 5.0
_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 1.0
_REWRITE_WITHIN_SECONDS = 30.0
_CALL_SECONDS = 5.0
_LOOK_SECONDS = 2.0  # a timer stands still while a machine sleeps, and the other clock does not


class RevocationsUnknownError(StreamqError):
    """The gateway does not know which tokens were revoked, so that it accepts none."""

    code = UNKNOWN
    retryable = True


class RevocationImpossibleError(StreamqError):
    """Nothing can be revoked here: no token is accepted, or the backend cannot keep revocations."""

    code = "revocation_impossible"


class OpensQueues(Protocol):
    """Opens the queue with the revocations."""

    async def open(self) -> ChunkQueue:
        """Return the queue in which a read may wait."""

    async def open_for_the_past(self) -> ChunkQueue:
        """Return the queue for all else."""


class RevocableConnection(Protocol):
    """An open connection that was opened with a token."""

    def stop(self, reason: str) -> None:
        """End the connection now, and say why."""


class Revocations:
    """The revocations that one gateway knows, in one event loop.

    Args:
        queues: Opens the queue.
        settings: How long tokens are accepted without news of revocations.
        needs_tokens: Whether tokens are accepted at all; otherwise nothing is read.
    """

    def __init__(self, queues: OpensQueues, settings: Settings, needs_tokens: bool) -> None:
        self.needs_tokens = needs_tokens
        """Whether tokens are accepted at all."""
        self._queues = queues
        self._limit = settings.gateway_revocation_seconds
        self._settings = settings.model_copy(
            update={
                "retry_seconds": min(settings.retry_seconds, 1.0),
                "operation_seconds": min(settings.operation_seconds, _CALL_SECONDS),
            }
        )
        self._revoked = RevokedTokens()
        self._open: dict[str, set[tuple[RevocableConnection, float]]] = defaultdict(set)
        self._loaded = asyncio.Event()
        self._is_possible = True
        self._known_at = (0.0, 0.0)
        self._follower: asyncio.Task[None] | None = None
        self._rewriter: asyncio.Task[None] | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._is_alarmed = False
        self._place = LogPlace(1)
        self._pause = _FIRST_PAUSE_SECONDS

    def start(self) -> None:
        """Begin to read revocations, unless that has begun or no tokens are accepted."""
        if self.needs_tokens and self._follower is None:
            self._follower = asyncio.create_task(self._follow(), name="streamq-revocations")

    async def check(self, rights: Rights) -> None:
        """Refuse a token that was revoked.

        Raises:
            InvalidTokenError: It was.
            RevocationsUnknownError: The gateway cannot know.
        """
        if rights.token_id is None:
            return
        await self.check_known()
        keys = keys_of(rights) if self._revoked else None
        if keys is not None and self._has(keys, rights.issued_at):
            raise InvalidTokenError("the token has been revoked")

    async def check_known(self, wait_seconds: float = _LOAD_SECONDS) -> None:
        """Check that all revocations are known, save those of the last moments.

        Args:
            wait_seconds: How long a gateway that has just begun may take to read them.

        Raises:
            RevocationsUnknownError: They are not.
        """
        self.start()
        if wait_seconds and not self._loaded.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_seconds):
                    await self._loaded.wait()
        if not self._loaded.is_set() or self._is_stale():
            raise RevocationsUnknownError(
                "the gateway cannot learn from the backend which tokens were revoked, and accepts "
                "none until it can; try again later"
            )

    def add(self, revocation: Revocation) -> None:
        """Add a revocation, and end the connections that it concerns."""
        self._revoked.add(revocation)
        held = self._open.get(revocation.key, ())
        for connection, issued_at in list(held):
            if revocation.before is None or issued_at < revocation.before:
                connection.stop(REVOKED)

    @contextlib.contextmanager
    def holding(self, rights: Rights | None, connection: RevocableConnection) -> Iterator[None]:
        """End a connection when its token is revoked, or nothing is known of that any more.

        Also if that happened just now, after the request was checked.
        """
        keys = None if rights is None else keys_of(rights)
        if rights is None or keys is None:
            yield
            return
        entry = connection, rights.issued_at
        for key in keys:
            self._open[key].add(entry)
        if self._has(keys, rights.issued_at):
            connection.stop(REVOKED)
        elif self._is_stale():
            connection.stop(UNKNOWN)
        try:
            yield
        finally:
            for key in keys:
                self._open[key].discard(entry)
                if not self._open[key]:
                    del self._open[key]

    async def revoke(self, revocation: Revocation) -> None:
        """Store a revocation for every gateway; this one knows it at once.

        Raises:
            RevocationImpossibleError: The backend cannot keep revocations.
            QuotaError: Its tenant has as many as are kept for one.
            StreamqError: It cannot be reached.

        Cancellation: it is revoked, or not.
        """
        try:
            log = await self._log()
        except CapabilityError as exc:
            raise RevocationImpossibleError(exc.message) from None
        self._check_room(revocation)
        await log.add(revocation, self._place)
        self.add(revocation)

    def _check_room(self, revocation: Revocation) -> None:
        revoked = self._revoked
        revoked.forget(time.time())
        if not revoked.has(revocation.key) and (
            revoked.count_of(revocation.tenant_key) >= MOST_OF_A_TENANT
        ):
            raise QuotaError(
                f"this tenant has {MOST_OF_A_TENANT:,} revocations that are still needed, all that "
                "a gateway keeps for one: revoke by subject instead of by jti, give expires_at, so "
                "that they are forgotten then, or let an operator use `streamq token revoke`"
            )

    async def _log(self) -> RevocationLog:
        return RevocationLog(await self._queues.open_for_the_past(), self._settings)

    async def aclose(self) -> None:
        """Stop reading. Idempotent; the next check reads everything anew."""
        tasks = [task for task in (self._follower, self._rewriter) if task is not None]
        self._follower = self._rewriter = None
        self._loaded.clear()
        if self._alarm is not None:
            self._alarm.cancel()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _has(self, keys: tuple[str, str], issued_at: float) -> bool:
        return self._revoked.has_token(keys[0]) or self._revoked.has_subject(keys[1], issued_at)

    async def _follow(self) -> None:
        while True:
            try:
                queue = await self._queues.open()
                if not can_keep_revocations(queue):  # nothing can have been revoked there
                    self._is_possible = False
                    self._loaded.set()
                    return
                await self._read(queue)
            except StreamqError as exc:
                _logger.warning("revocations cannot be read; trying again: %s", exc)
            except Exception:
                _logger.exception("reading revocations failed unexpectedly; trying again")
            await asyncio.sleep(self._pause * random.uniform(0.5, 1.0))
            self._pause = min(self._pause * 2, _LONGEST_PAUSE_SECONDS)

    async def _read(self, queue: ChunkQueue) -> Never:
        log = RevocationLog(queue, self._settings)
        began = _now()
        self._place = await log.load(self.add)
        self._loaded.set()
        max_wait = min(_LONGEST_WAIT_SECONDS, self._limit / 3)
        while True:
            self._note(began)
            self._tidy()
            began = _now()
            self._place = await log.follow(self._place, self.add, max_wait)

    def _note(self, began: tuple[float, float]) -> None:
        """Note that everything is known that was there when a read began."""
        self._known_at = began
        self._pause = _FIRST_PAUSE_SECONDS
        self._is_alarmed = False
        self._look()

    def _look(self) -> None:
        """End all connections if nothing is known any more, and look again soon."""
        if self._alarm is not None:
            self._alarm.cancel()
        left = self._limit - _age(self._known_at)
        if left <= 0:
            self._end_all()
        wait = min(left, _LOOK_SECONDS) if left > 0 else _LOOK_SECONDS
        self._alarm = asyncio.get_running_loop().call_later(wait, self._look)

    def _is_stale(self) -> bool:
        return self._is_possible and _age(self._known_at) >= self._limit

    def _end_all(self) -> None:
        if not self._is_alarmed:
            self._is_alarmed = True
            _logger.warning(
                "for %g s the backend has not said which tokens were revoked: none is accepted "
                "until it does (STREAMQ_GATEWAY_REVOCATION_SECONDS)",
                self._limit,
            )
        for held in list(self._open.values()):
            for connection, _ in list(held):
                connection.stop(UNKNOWN)

    def _tidy(self) -> None:
        """Have the log rewritten if most of it is no longer needed."""
        is_under_way = self._rewriter is not None and not self._rewriter.done()
        if self._is_untidy() and not is_under_way:
            self._rewriter = asyncio.create_task(self._rewrite(), name="streamq-revocations-log")

    def _is_untidy(self) -> bool:
        now = time.time()
        self._revoked.forget(now)
        return self._place.needs_rewriting(len(self._revoked), now)

    async def _rewrite(self) -> None:
        await asyncio.sleep(random.uniform(0.0, _REWRITE_WITHIN_SECONDS))
        if not self._is_untidy():  # another gateway has done it
            return
        try:
            await (await self._log()).rewrite()
        except StreamqError as exc:
            _logger.warning("the log of revocations could not be rewritten: %s", exc)


def _now() -> tuple[float, float]:
    return time.monotonic(), time.time()


def _age(moment: tuple[float, float]) -> float:
    """Return how long ago a moment was; a machine may have slept, and a clock may be set."""
    return max(time.monotonic() - moment[0], time.time() - moment[1])
