"""Ends what a request follows when its token ends or is revoked.

Design: docs/design/a2a.md.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Final, TypeVar

from streamq.access import Rights

from ._access_errors import AccessError, AccessUnknownError, UnauthenticatedError

T = TypeVar("T")

_LOOK_SECONDS = 5.0  # a timer stands still while a machine sleeps, and the clock does not
_EXPIRED: Final = "token_expired"
_TEXTS = {
    _EXPIRED: "the token has expired: get another one, and subscribe again",
    "revoked": "the token has been revoked",
    "revocations_unknown": "the server cannot learn which tokens were revoked; try again later",
}


class Lease:
    """The permission of one request, which ends with its token.

    Args:
        rights: What it may do, and until when.
    """

    def __init__(self, rights: Rights) -> None:
        self._expires_at = rights.expires_at
        self._reason = ""
        self._step: asyncio.Timeout | None = None
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> Lease:
        self._look()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def stop(self, reason: str) -> None:
        """End it now, and say why."""
        self._reason = self._reason or reason
        if self._step is not None:
            self._step.reschedule(asyncio.get_running_loop().time())

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what comes of some work, which is cancelled when the lease ends.

        Raises:
            AccessError: The lease has ended.
        """
        self._check_expiry()
        if self._reason:
            work.close()
            raise self._error()
        step = asyncio.timeout(None)
        try:
            async with step:
                self._step = step
                try:
                    return await work
                finally:
                    self._step = None
        except TimeoutError:
            if step.expired():
                raise self._error() from None
            raise

    def _look(self) -> None:
        """End it if its time is over, and look again soon; the clock may be set meanwhile."""
        self._check_expiry()
        if self._expires_at is not None and not self._reason:
            wait = min(max(self._expires_at - time.time(), 0.0), _LOOK_SECONDS)
            self._timer = asyncio.get_running_loop().call_later(wait, self._look)

    def _check_expiry(self) -> None:
        if self._expires_at is not None and time.time() >= self._expires_at:
            self.stop(_EXPIRED)

    def _error(self) -> AccessError:
        kind = AccessUnknownError if self._reason == "revocations_unknown" else UnauthenticatedError
        code = "invalid_token" if kind is UnauthenticatedError else self._reason
        return kind(_TEXTS.get(self._reason, self._reason), code)
