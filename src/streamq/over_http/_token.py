"""Gets the token that a gateway wants, and another one when that has ended or is refused.

Design: docs/design/reading-over-http.md.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from streamq._errors import AccessDeniedError, ConfigurationError, StreamqError, error_text
from streamq.driver_parts._one_thread import OneThread

Token: TypeAlias = str | Callable[[], str | Awaitable[str]]
"""A token, or a function that returns one whenever another one is needed."""

_SECONDS = 30.0


class TokenSource:
    """The token of one queue.

    A function that is no coroutine function runs in a thread, and may block; all calls that need a
    token meanwhile get its answer.

    Args:
        token: The token, or what returns one; ``None`` for none.
        backend: For messages.
    """

    def __init__(self, token: Token | None, backend: str) -> None:
        self._call = token if callable(token) else None
        self._token = None if callable(token) or token is None else _checked(token)
        self._backend = backend
        self._thread = OneThread()
        self._asking = asyncio.Lock()

    async def get(self) -> str | None:
        """Return the token that is used now; ask for one if there is none.

        Cancellation: leaves nothing behind but a thread that ends with the caller's function.

        Raises:
            AccessDeniedError: The function fails, or does not answer.
            ConfigurationError: It returns something that is no token.
            StreamqError: What it raises.
        """
        if self._call is None or self._token is not None:
            return self._token
        async with self._asking:
            if self._token is None:
                self._token = _checked(await self._asked(self._call))
            return self._token

    def refuse(self, token: str | None) -> bool:
        """Note that a token was refused, or ends; return whether there may be another one."""
        if self._call is None:
            return False
        if token == self._token:
            self._token = None
        return True

    async def _asked(self, call: Callable[[], str | Awaitable[str]]) -> object:
        try:
            async with asyncio.timeout(_SECONDS) as patience:
                if inspect.iscoroutinefunction(call):
                    return await call()
                return await self._thread.call(call)
        except StreamqError:
            raise
        except Exception as exc:
            if isinstance(exc, TimeoutError) and patience.expired():
                problem = f"has not answered within {_SECONDS:g} s"
            else:
                problem = f"failed: {type(exc).__name__}: {error_text(exc)}"
            raise AccessDeniedError(
                f"the function that returns the token {problem}", backend=self._backend
            ) from exc


def _checked(token: object) -> str:
    """Return a token that a header can have.

    Raises:
        ConfigurationError: It is none.
    """
    if not isinstance(token, str):
        raise ConfigurationError(f"the token is {type(token).__name__}, and has to be a text")
    token = token.strip().removeprefix("Bearer ")
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        what = "is empty" if not token else "has characters that no token has"
        raise ConfigurationError(
            f"the token {what}; give what `streamq token new` prints, or what the issuer returns"
        )
    return token
