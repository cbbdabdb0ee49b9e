"""Tokens for OAUTHBEARER, from a function of the application."""

from __future__ import annotations

import asyncio
import importlib
import inspect
from collections.abc import Awaitable, Callable

from aiokafka.abc import AbstractTokenProvider

from streamq.driver import ConfigurationError

from ._errors import TokenUnavailable
from ._positions import BACKEND

_SETTING = "STREAMQ_KAFKA_SASL_TOKEN_PROVIDER"


class TokenProvider(AbstractTokenProvider):  # type: ignore[misc]
    """Asks a function for a token whenever aiokafka connects.

    Args:
        path: The function, as ``module:function``. One that is no coroutine function is called in a
            thread: it may have to ask somebody.
        patience: Seconds to wait for it.

    Attributes:
        failure: Why there was no token when it was last asked for.

    Raises:
        ConfigurationError: It cannot be imported.
    """

    def __init__(self, path: str, patience: float) -> None:
        module, _, name = path.partition(":")
        try:
            found = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError, ValueError) as exc:
            raise ConfigurationError(
                f"{_SETTING}={path!r} cannot be imported: {exc}", backend=BACKEND
            ) from exc
        self.failure: TokenUnavailable | None = None
        self._function: Callable[[], str | Awaitable[str]] = found
        self._path = path
        self._patience = patience

    async def token(self) -> str:
        """Return a token.

        Raises:
            TokenUnavailable: The function failed, took too long, or returned something else. What
                it said is the cause and not in the message, since it may tell of secrets.
        """
        try:
            token = await self._ask()
        except Exception as exc:  # whatever an application raises
            self.failure = TokenUnavailable(f"{self._path} raised {type(exc).__name__}")
            raise self.failure from exc
        if not isinstance(token, str) or not token:
            self.failure = TokenUnavailable(f"{self._path} returned {type(token).__name__}")
            raise self.failure
        self.failure = None
        return token

    async def _ask(self) -> object:
        function = self._function
        async with asyncio.timeout(self._patience):
            if inspect.iscoroutinefunction(function):
                return await function()
            token = await asyncio.to_thread(function)
            return await token if inspect.isawaitable(token) else token
