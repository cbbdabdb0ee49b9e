"""Connects and logs in to a broker with the credentials and certificates that are valid now.

Nothing is kept from one connection to the next: a password, a token or a file that was rotated
meanwhile is used by the next connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import ssl
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import aiohappyeyeballs
import aiokafka.errors as ke
from aiokafka.abc import AbstractTokenProvider
from aiokafka.conn import AIOKafkaConnection

from streamq.driver import ConfigurationError, CredentialSource, OneThread, StreamqError
from streamq_kafka._errors import CredentialsUnavailable, CredentialsUnusable, LoginRefused
from streamq_kafka._naming import BACKEND
from streamq_kafka._settings import KafkaSettings

from ._tokens import TokenProvider

_NEXT_ADDRESS_SECONDS = 0.25
_IDLE_MS = 540_000  # less than brokers allow
_REFUSED = (ke.AuthenticationFailedError, ke.SaslAuthenticationFailed, ke.DelegationTokenExpired)
_SETTINGS = "STREAMQ_KAFKA_SASL_"


class BrokerAccess:
    """Connects to the brokers and logs in, with the credentials and certificates of the moment.

    Args:
        settings: The settings of the driver.

    Attributes:
        servers: The configured servers, as host and port.
        client_options: The options to create an aiokafka client with. It has no credentials:
            :meth:`connect` makes every connection.

    Raises:
        ConfigurationError: A file or the token provider cannot be used. The message never contains
            a secret.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._has_logged_in = False
        self._is_encrypted = settings.security_protocol in ("SSL", "SASL_SSL")
        self._tls: tuple[object, ssl.SSLContext] | None = None
        self._logs_in = settings.security_protocol.startswith("SASL_")
        # Half of the caller's own timeout, so that the caller gets the reason and not a timeout.
        self._patience = (
            min(settings.connect_timeout_seconds, settings.operation_timeout_seconds) / 2
        )
        takes_tokens = settings.sasl_mechanism == "OAUTHBEARER"
        provider = settings.sasl_token_provider if takes_tokens else None
        self._names = OneThread()
        self._tokens = None if provider is None else TokenProvider(provider, self._patience)
        names = frozenset({"token"} if takes_tokens else _BOTH)
        self._source = _source(settings, names, required=() if provider else sorted(names))
        self.servers = [_address(each) for each in settings.bootstrap_servers.split(",")]
        self.client_options: dict[str, Any] = {
            "bootstrap_servers": settings.bootstrap_servers.split(","),
            "client_id": settings.client_id,
            "request_timeout_ms": max(1, int(settings.operation_timeout_seconds * 1000)),
            "security_protocol": settings.security_protocol,
            "ssl_context": self._tls_context() if self._is_encrypted else None,
            "sasl_mechanism": settings.sasl_mechanism,
            "sasl_plain_username": "",
            "sasl_plain_password": "",
        }

    async def connect(
        self,
        host: str,
        port: int,
        *,
        request_timeout_ms: int,
        on_close: Callable[[Any, Any], None] | None = None,
    ) -> AIOKafkaConnection:
        """Return a new connection that is logged in.

        If the brokers refuse credentials that may change, the source is asked once more.

        Args:
            host: A name, which is resolved now, or an address.
            port: The port.
            request_timeout_ms: Longest time to connect, and to wait for each answer.
            on_close: Called when the connection is closed.

        Raises:
            LoginRefused: The brokers refuse credentials of a source that changes them; it may have
                others later.
            CredentialsUnavailable: The source of the credentials fails, now or (its subclass
            ``CredentialsUnusable``) whenever it is asked.
            aiokafka.errors.KafkaError: The broker does not answer as it should, or refuses us.
            OSError: The network failed, or there is no such name.
        """
        try:
            return await self._connect(host, port, request_timeout_ms, on_close)
        except _REFUSED:
            if not self._source.is_dynamic and self._tokens is None:
                raise
        try:
            return await self._connect(host, port, request_timeout_ms, on_close)
        except _REFUSED as exc:
            if not self._has_logged_in:
                raise  # they have never been right
            raise LoginRefused(*exc.args) from exc

    # -- inside --------------------------------------------------------------------------------

    async def _connect(
        self,
        host: str,
        port: int,
        request_timeout_ms: int,
        on_close: Callable[[Any, Any], None] | None,
    ) -> AIOKafkaConnection:
        settings = self._settings
        found = await self._credentials() if self._logs_in else {}
        tokens = self._tokens
        if tokens is None and "token" in found:
            tokens = _Token(found["token"])
        connection = _Connection(
            host,
            port,
            client_id=settings.client_id,
            request_timeout_ms=request_timeout_ms,
            ssl_context=await self._certificates(),
            security_protocol=settings.security_protocol,
            on_close=on_close,
            max_idle_ms=_IDLE_MS,
            sasl_mechanism=settings.sasl_mechanism if self._logs_in else None,
            sasl_plain_username=found.get("username", ""),
            sasl_plain_password=found.get("password", ""),
            sasl_oauth_token_provider=tokens,
        )
        connection.names = self._names
        await connection.connect()
        self._has_logged_in = True
        return connection

    async def _credentials(self) -> dict[str, str]:
        try:
            async with asyncio.timeout(self._patience):
                found = await self._source.get()
        except TimeoutError:
            raise CredentialsUnavailable(
                f"no answer from {_SETTINGS}CREDENTIALS within {self._patience:g} s"
            ) from None
        except StreamqError as exc:
            kind = CredentialsUnavailable if exc.retryable else CredentialsUnusable
            raise kind(str(exc)) from exc
        return found

    async def _certificates(self) -> ssl.SSLContext | None:
        if not self._is_encrypted:
            return None
        try:
            return self._tls_context()
        except ConfigurationError as exc:
            # They could be used when the queue was opened: somebody may be replacing them.
            raise CredentialsUnavailable(str(exc)) from exc

    def _tls_context(self) -> ssl.SSLContext:
        """Return the context of the present files, which are read only if they have changed."""
        settings = self._settings
        files = (settings.tls_ca_file, settings.tls_cert_file, settings.tls_key_file)
        version = [_version(each) for each in files if each]
        if self._tls is None or self._tls[0] != version:
            self._tls = version, _tls_context(settings)
        return self._tls[1]


_BOTH = ("username", "password")


class _Connection(AIOKafkaConnection):  # type: ignore[misc]
    """aiokafka's connection: tries all addresses of a name, and notices that a token is refused.

    Attributes:
        names: Resolves names.
    """

    names: OneThread

    async def connect(self) -> Any:
        loop: Any = asyncio.get_running_loop()
        self._loop = _TryingAllAddresses(loop, self.names)
        return await super().connect()

    def authenticator_oauth(self) -> Any:
        return _TokenLogin(super().authenticator_oauth())


class _TryingAllAddresses:
    """An event loop whose connections try the next address when one is silent for a moment."""

    def __init__(self, loop: asyncio.AbstractEventLoop, names: OneThread) -> None:
        self._loop = loop
        self._names = names

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    async def create_connection(
        self, factory: Callable[[], Any], host: str, port: int, *, ssl: ssl.SSLContext | None
    ) -> Any:
        if _is_address(host):
            return await self._loop.create_connection(factory, host, port, ssl=ssl)
        resolve = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        found = await self._names.call(resolve, (host, port))
        sock = await aiohappyeyeballs.start_connection(
            found, happy_eyeballs_delay=_NEXT_ADDRESS_SECONDS, interleave=1, loop=self._loop
        )
        try:
            return await self._loop.create_connection(
                factory, sock=sock, ssl=ssl, server_hostname=host if ssl else None
            )
        except BaseException:
            sock.close()
            raise


class _TokenLogin:
    """aiokafka's login with a token, which takes a broker's refusal for a success."""

    def __init__(self, login: Any) -> None:
        self._login = login

    async def step(self, payload: bytes | None) -> Any:
        if payload:
            raise ke.SaslAuthenticationFailed("it does not take the token; has that expired?")
        return await self._login.step(payload)


class _Token(AbstractTokenProvider):  # type: ignore[misc]
    """A token for one connection."""

    def __init__(self, token: str) -> None:
        self._token = token

    async def token(self) -> str:
        return self._token


def _source(
    settings: KafkaSettings, names: frozenset[str], *, required: Iterable[str]
) -> CredentialSource:
    password = settings.sasl_password
    fixed = {"username": settings.sasl_username, "password": password}
    path = settings.sasl_password_file
    return CredentialSource(
        _SETTINGS,
        names,
        call=settings.sasl_credentials,
        files={"password": Path(path)} if path and "password" in names else {},
        fixed={
            name: value if isinstance(value, str) else value.get_secret_value()
            for name, value in fixed.items()
            if value is not None and name in names
        },
        required=required,
    )


def _address(server: str) -> tuple[str, int]:
    host, _, port = server.rpartition(":")
    return host.strip("[]"), int(port)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _version(path: str) -> object:
    """Return what changes with a file, also if it is replaced by another one."""
    with contextlib.suppress(OSError):
        found = Path(path).stat()
        return found.st_ino, found.st_mtime_ns, found.st_size
    return None


def _tls_context(settings: KafkaSettings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.tls_ca_file)
        if settings.tls_cert_file:
            key_password = settings.tls_key_password
            context.load_cert_chain(
                settings.tls_cert_file,
                settings.tls_key_file,
                # Never None: with None, OpenSSL prompts for the password on the terminal.
                "" if key_password is None else key_password.get_secret_value(),
            )
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else type(exc).__name__
        raise ConfigurationError(
            f"the files in STREAMQ_KAFKA_TLS_CA_FILE, _CERT_FILE and _KEY_FILE cannot be used: "
            f"{reason}",
            backend=BACKEND,
        ) from None
    return context
