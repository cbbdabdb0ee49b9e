"""Logs in with the credentials that are valid at the moment.

Design: docs/design/redis.md.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import redis.exceptions as rx
from redis.credentials import CredentialProvider, UsernamePasswordCredentialProvider

from streamq.driver import CredentialSource
from streamq_redis._errors import RefusedForNowError

T = TypeVar("T")


class Login:
    """Gives each connection its credentials, asked of a source every time.

    Args:
        source: Returns ``username`` and ``password``, either of which may be missing.
    """

    def __init__(self, source: CredentialSource) -> None:
        self._source = source
        self._given: dict[str, str] = {}

    async def ask(self) -> CredentialProvider | None:
        """Return a provider of the credentials that are valid now; ``None`` if there are none.

        Raises:
            ConfigurationError: The source cannot be used.
            BackendUnavailableError: The source fails for now.
        """
        self._given = await self._source.get()
        return self.latest()

    def latest(self) -> CredentialProvider | None:
        """Return a provider of the latest credentials, without asking for new ones."""
        username, password = self._given.get("username"), self._given.get("password")
        if not password:
            return None
        return UsernamePasswordCredentialProvider(username, password)

    async def attempt(self, connect: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Connect; if the server refuses the credentials and there are others now, once more.

        Raises:
            RefusedForNowError: It refuses them, and the source may return others later: they are
                being rotated, or they are wrong.
            redis.exceptions.RedisError: Connecting has failed for another reason.
        """
        try:
            return await connect()
        except rx.AuthenticationError as exc:
            if not self._source.is_dynamic:
                raise
            given, refusal = self._given, exc
        try:
            if await self._source.get() != given:
                return await connect()
        except rx.AuthenticationError as exc:
            refusal = exc
        raise RefusedForNowError(str(refusal)) from refusal
