"""Resolves the credentials of a queue, and resolves them anew when a service refuses them.

Design: docs/design/aws.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from aiobotocore.credentials import AioCredentials, AioRefreshableCredentials
from aiobotocore.session import AioSession
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    UnknownCredentialError,
)

from streamq.driver import (
    CredentialSource,
    SingleFlight,
    StreamqError,
    closed_error,
    mask_credentials,
)

_logger = logging.getLogger("streamq.aws")

REQUIRED = ("access_key_id", "secret_access_key")
NAMES = frozenset({*REQUIRED, "session_token", "expires_at"})
"""Names of credentials in the setting ``credentials``; the last two may be missing."""

EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"})
"""Codes for credentials whose time is over."""

UNKNOWN_KEY = frozenset(
    {
        *("InvalidAccessKeyId", "InvalidClientTokenId", "InvalidToken", "InvalidSecurity"),
        *("SignatureDoesNotMatch", "InvalidSignatureException", "UnrecognizedClientException"),
        *("AuthFailure", "NotAuthorized", "InvalidSecurityToken"),
    }
)
"""Codes for credentials that are not in force: rotated, or never were."""

CLOCK_WORDS = ("Signature expired", "Signature not yet current")
"""Words of SQS and SNS about a wrong clock, with a code for a wrong signature."""

SCOPE_WORDS = "Credential should be scoped to"
"""Words of AWS about a request for another region, with a code for a wrong signature."""

_PERHAPS = frozenset({"400", "401", "403", "AccessDenied", "AccessDeniedException", "Forbidden"})
"""An answer to HEAD has only its status; a session that was revoked is denied everything."""

_PERHAPS_SECONDS = 5.0  # between two looks for other credentials after such an answer
_AGAIN_SECONDS = 0.2  # between two looks after another answer
_PROVIDER = "credential_provider"
"""The component that a session asks for credentials."""

_LONGEST_SECONDS = 60.0  # a program may ask its user to log in
_FIXED = frozenset({"env", "explicit"})  # fixed while this process runs
_GENERATION = "streamq_credentials"


class QueueCredentials(AioCredentials):  # type: ignore[misc]  # aiobotocore has no types
    """The credentials with which all clients of one queue sign.

    They are resolved when they are first needed: by the setting ``credentials``, or by the sources
    that every AWS tool uses. After a refusal they are resolved anew, from files and services and
    not from what the last resolution kept; what a refusal of one client has led to is used by all.

    Cancelling a request ends its wait and not the resolution, which other requests need.

    Args:
        open_session: Opens a session that has read nothing yet.
        source: What the setting ``credentials`` names; ``None`` without it.
        backend: The driver's name, for messages.
    """

    method = "streamq"

    def __init__(
        self,
        open_session: Callable[[], AioSession],
        source: CredentialSource | None = None,
        *,
        backend: str,
    ) -> None:
        super().__init__("", "", method=self.method)
        self._open_session = open_session
        self._backend = backend
        self._source = source
        self._first_chain: Any = None
        self._resolved: Any = None
        self._used: ReadOnlyCredentials | None = None
        self._generation = 0
        self._looked_at = float("-inf")
        self._have_worked = False
        self._is_renewing = False
        self._children: set[asyncio.subprocess.Process] = set()

        closed = partial(closed_error, backend)
        self._resolution = SingleFlight(self._resolve_in_time, closed=closed)
        self._renewal = SingleFlight(self._resolve_anew, closed=closed)

    # -- for the session and its clients ---------------------------------------------------------

    def take_over(self, session: AioSession) -> None:
        """Give a session that has read nothing yet these credentials, and resolve by its sources.

        The first resolution needs no session of its own: to open one takes 15 ms.
        """
        self._first_chain = session.get_component(_PROVIDER)
        session.register_component(_PROVIDER, self)

    async def load_credentials(self) -> QueueCredentials:
        """Return itself: a session asks its component ``credential_provider`` for credentials."""
        return self

    async def get_account_id(self) -> str | None:
        """Return the account, if the source states it."""
        account: str | None = (await self.get_frozen_credentials()).account_id
        return account

    async def get_frozen_credentials(self) -> ReadOnlyCredentials:
        """Return the credentials to sign a request with.

        Raises:
            BotoCoreError: There are none, or they cannot be fetched.
            ClientError: The service that issues them refuses to.
            StreamqError: What the setting names fails, or the queue is closed.
        """
        resolved = self._resolved
        is_due = isinstance(resolved, AioRefreshableCredentials) and resolved.refresh_needed()
        if resolved is None or is_due:
            self._used = await self._resolution.result()
        else:
            self._used = await resolved.get_frozen_credentials()
        return self._used

    def watch(self, client: Any) -> None:
        """Repeat a client's requests once that were refused and whose credentials were renewed."""
        service = client.meta.service_model.service_id.hyphenize()
        client.meta.events.register(f"before-sign.{service}", self._note)
        client.meta.events.register(f"needs-retry.{service}", self._is_worth_repeating)

    async def aclose(self) -> None:
        """End a resolution that is under way, and a process that it has started. Idempotent."""
        self._renewal.close()
        self._resolution.close()
        await self._renewal.gone()
        await self._resolution.gone()

    # -- after an answer -------------------------------------------------------------------------

    def _note(self, request: Any, **_: object) -> None:
        request.context[_GENERATION] = self._generation

    async def _is_worth_repeating(
        self, response: Any, attempts: int, request_dict: Any, **_: object
    ) -> float | None:
        """Return a pause of 0 to repeat a request at once; ``None`` to leave its answer as it is.

        Raises:
            CredentialRetrievalError: The credentials are refused, and others may come.
        """
        if response is None:
            return None
        status, answer = response[0].status_code, response[1]
        if status < 300:
            self._have_worked = True
            return None
        said = answer.get("Error", {})
        code = str(said.get("Code", ""))
        if any(words in str(said.get("Message")) for words in (*CLOCK_WORDS, SCOPE_WORDS)):
            return None
        is_certain = code in EXPIRED or code in UNKNOWN_KEY
        if not is_certain and code not in _PERHAPS:
            return None
        pause = _AGAIN_SECONDS if is_certain else _PERHAPS_SECONDS
        generation = request_dict["context"].get(_GENERATION, self._generation)
        if attempts == 1 and await self._renew(generation, pause):
            return 0.0
        if (is_certain or code == "400") and self._may_be_replaced(code):
            raise CredentialRetrievalError(
                provider=self._resolved.method,
                error_msg=f"they are refused ({code}, {said.get('Message') or 'no message'}) and "
                "have not been replaced yet",
            )
        return None

    def _may_be_replaced(self, code: str) -> bool:
        """Whether refused credentials may be replaced while this process runs."""
        if self._resolved is None or self._resolved.method in _FIXED:
            return False
        is_refreshed = isinstance(self._resolved, AioRefreshableCredentials)
        return self._have_worked or (is_refreshed and code in EXPIRED)

    async def _renew(self, generation: int, pause: float) -> bool:
        """Resolve the credentials anew; return whether there are others than before.

        Args:
            generation: That of the credentials that were refused.
            pause: Time since the last look for which its result holds.
        """
        if generation == self._generation:
            now = asyncio.get_running_loop().time()
            if self._is_renewing or now >= self._looked_at + pause:
                await self._renewal.result()
        return generation != self._generation

    async def _resolve_anew(self) -> None:
        before, self._resolved = self._used, None
        self._is_renewing = True
        try:
            self._used = await self._resolution.result()
        finally:
            self._is_renewing = False
            self._looked_at = asyncio.get_running_loop().time()
        if self._used != before:
            self._generation += 1

    # -- resolving -------------------------------------------------------------------------------

    async def _resolve_in_time(self) -> ReadOnlyCredentials:
        try:
            async with asyncio.timeout(_LONGEST_SECONDS):
                return await self._current()
        except TimeoutError as exc:
            raise _cannot(f"it has not answered for {_LONGEST_SECONDS:g} s") from exc
        finally:
            await self._end_children()

    async def _current(self) -> ReadOnlyCredentials:
        if self._resolved is not None:
            # The source may have kept something that has been replaced since, such as the keys
            # with which it assumes a role: then it is asked from the beginning.
            try:
                return await self._resolved.get_frozen_credentials()
            except Exception as exc:  # noqa: BLE001 - whatever it is, the source is asked anew
                # The text of others may quote what the source gave, which may be a secret.
                is_shown = isinstance(exc, BotoCoreError | ClientError | StreamqError)
                _logger.warning(
                    "%s: credentials of %s cannot be renewed (%s); asking it from the beginning",
                    self._backend,
                    self._resolved.method,
                    mask_credentials(str(exc)) if is_shown else type(exc).__name__,
                )
        try:
            self._resolved = await self._load()
            return await self._resolved.get_frozen_credentials()
        except (BotoCoreError, ClientError) as exc:
            if self._have_worked:  # a file that is being written, a service that restarts
                raise _cannot(str(exc)) from exc
            raise
        except StreamqError:
            raise
        except OSError as exc:
            where = f": {exc.filename}" if exc.filename else ""
            raise _cannot(f"{exc.strerror or type(exc).__name__}{where}") from exc
        except (LookupError, TypeError, ValueError) as exc:
            # Their text may quote what the source gave, which may be a secret.
            raise _cannot("what it gives is malformed") from exc
        except RuntimeError as exc:
            raise _cannot(str(exc)) from exc

    async def _load(self) -> Any:
        if self._source is not None:
            return await self._ask(self._source)
        chain, self._first_chain = self._first_chain, None
        if chain is None:
            chain = self._open_session().get_component(_PROVIDER)
        with contextlib.suppress(UnknownCredentialError):
            chain.get_provider("custom-process")._popen = self._start
        found = await chain.load_credentials()
        if found is None:
            raise NoCredentialsError
        return found

    async def _ask(self, source: CredentialSource) -> Any:
        async def refresh() -> dict[str, str | None]:
            answer = await source.get()
            return {
                "access_key": answer["access_key_id"],
                "secret_key": answer["secret_access_key"],
                "token": answer.get("session_token"),
                "expiry_time": answer.get("expires_at"),
            }

        found = await refresh()
        if found["expiry_time"] is not None:
            return AioRefreshableCredentials.create_from_metadata(found, refresh, self.method)
        return AioCredentials(
            found["access_key"], found["secret_key"], found["token"], method=self.method
        )

    async def _start(self, *command: str, **options: Any) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(*command, **options)
        self._children.add(process)
        return process

    async def _end_children(self) -> None:
        """Kill the process that a cancelled or late resolution leaves."""
        while self._children:
            process = self._children.pop()
            if process.returncode is None:
                process.kill()
                await process.wait()


def _cannot(reason: str) -> CredentialRetrievalError:
    return CredentialRetrievalError(provider="the configured source", error_msg=reason)
