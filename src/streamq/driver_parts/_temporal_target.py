"""Decides where Temporal is and how to connect: by settings, then by Temporal's own configuration.

Design: docs/design/configuration.md.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from streamq._errors import (
    AccessDeniedError,
    BackendUnavailableError,
    ConfigurationError,
    StreamqError,
)

from ._credentials import seen_value

if TYPE_CHECKING:
    from temporalio.client import Client
    from temporalio.envconfig import ClientConfigProfile, ClientConfigTLS
    from temporalio.service import TLSConfig

DEFAULT_TEMPORAL_ADDRESS = "127.0.0.1:7233"

_PEM = "-----BEGIN"
_SDK_SECONDS = 0.05
_CHOICE_OF_PROFILE = ("TEMPORAL_PROFILE", "TEMPORAL_CONFIG_FILE")
_ALERT = r"(?:fatal alert: |AlertReceived\()"  # after, and while, TLS shakes hands
_QUOTED = re.compile(r'(?:message|error): "([^"]+)"')  # in messages of the SDK's core
_REFUSED = (
    "it refuses us: the API key is missing, has expired, or is for another namespace; check "
    "{api_key}"
)
_REASONS = (
    (r"Unauthenticated|PermissionDenied", _REFUSED),
    (r"UnknownIssuer", "its certificate is of an authority that is not trusted: name that in {ca}"),
    (r"NotValidForName", "its certificate is for another name: give that in {name}"),
    (r"InvalidCertificate\(Expired", "its certificate has expired"),
    (r"InvalidContentType", "it speaks no TLS: leave out API key, certificates and {tls}"),
    (r"PrivateKeyParseError", "the private key in {key} is none"),
    (_ALERT + "CertificateRequired", "it demands a client certificate: name one in {cert}"),
    (
        _ALERT + "(CertificateExpired|BadCertificate|UnknownCA|CertificateUnknown|"
        "CertificateRevoked|UnsupportedCertificate)",
        "it refuses our client certificate ({0}): check {cert}",
    ),
    (_ALERT + r"(\w+)", "received fatal alert: {0}"),
    (
        r"BrokenPipe|ConnectionReset|UnexpectedEof|connection closed|operation was canceled",
        "it closed the connection, as a server does that demands TLS ({tls}) or a client "
        "certificate, or refuses ours ({cert})",
    ),
)
_VARIABLES = {
    "tls": ("TLS", "TEMPORAL_TLS"),
    "ca": ("TLS_SERVER_CA", "TEMPORAL_TLS_SERVER_CA_CERT_PATH"),
    "name": ("TLS_SERVER_NAME", "TEMPORAL_TLS_SERVER_NAME"),
    "cert": ("TLS_CLIENT_CERT", "TEMPORAL_TLS_CLIENT_CERT_PATH"),
    "key": ("TLS_CLIENT_KEY", "TEMPORAL_TLS_CLIENT_KEY_PATH"),
    "api_key": ("API_KEY", "TEMPORAL_API_KEY"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TemporalTarget:
    """Where Temporal is, as far as settings of streamq state it.

    What they leave open comes from the profile of ``temporalio.envconfig``: variables
    ``TEMPORAL_...``, then ``temporal.toml``. What that leaves open has a default. If the settings
    state another address than ``temporal.toml``, nothing comes from that file.

    Attributes:
        prefix: Beginning of the names of the settings' variables, for messages.
        address: Host and port.
        namespace: Namespace.
        profile: Name of the profile, by default ``TEMPORAL_PROFILE``, else ``default``.
        api_key: API key; implies TLS.
        api_key_file: File with the API key.
        tls: Whether to connect by TLS.
        tls_server_name: Name that the server's certificate has to carry.
        tls_server_ca: File with the authorities that the server is verified with.
        tls_client_cert: File with the client's certificate, for mutual TLS.
        tls_client_key: File with its private key.
    """

    prefix: str
    address: str | None = None
    namespace: str | None = None
    profile: str | None = None
    api_key: SecretStr | None = None
    api_key_file: Path | None = None
    tls: bool | None = None
    tls_server_name: str | None = None
    tls_server_ca: Path | None = None
    tls_client_cert: Path | None = None
    tls_client_key: Path | None = None

    def resolve(self) -> TemporalEndpoint:
        """Read the profile and the files, and return where and how to connect.

        With :attr:`tls` False, a key of Temporal's own configuration is not sent.

        Raises:
            ConfigurationError: The profile, ``temporal.toml`` or a file cannot be used, or
                :attr:`api_key` would be sent without TLS.
        """
        profile = self._load_profile()
        if self.api_key and self.api_key_file:
            raise ConfigurationError(
                f"{self.prefix}API_KEY and {self.prefix}API_KEY_FILE are both given; remove one"
            )
        given = self.api_key or self._key_of_file()
        if self.tls is False and given:
            raise ConfigurationError(
                f"{self.prefix}TLS is false, and {self.prefix}API_KEY is given, which would be "
                "sent in clear text; remove one"
            )
        key = given.get_secret_value() if given else profile.api_key
        if self.tls is False:
            key = None
        ours = (self.address, given, self.tls, self.tls_server_ca, self.tls_client_cert)
        states = (*ours, profile.address, profile.api_key, profile.tls)
        return TemporalEndpoint(
            prefix=self.prefix,
            address=self.address or profile.address or DEFAULT_TEMPORAL_ADDRESS,
            namespace=self.namespace or profile.namespace or "default",
            api_key=key or None,
            tls=self._tls(profile.tls, has_key=bool(key), has_our_key=bool(given)),
            metadata=dict(profile.grpc_meta),
            is_configured=any(each is not None for each in states),
        )

    def local(self, address: str, namespace: str | None = None) -> TemporalEndpoint:
        """Return a server of this machine that has no TLS: no profile says anything about it.

        Args:
            address: Host and port.
            namespace: Namespace, by default that of the settings.
        """
        return TemporalEndpoint(
            prefix=self.prefix,
            address=address,
            namespace=namespace or self.namespace or "default",
            api_key=None,
            tls=False,
            metadata={},
            is_configured=True,
        )

    def _load_profile(self) -> ClientConfigProfile:
        """Load the profile, without its file if that is for another address than ours.

        The file's key and certificates are for the file's server. Variables are a choice for this
        process, so that they apply to any address.
        """
        if self.address:
            chosen = {
                name: value
                for name, value in os.environ.items()
                if name in _CHOICE_OF_PROFILE or not name.startswith("TEMPORAL_")
            }
            stored = _load(self.profile, chosen)
            if stored.address and stored.address != self.address:
                return _load(self.profile, dict(os.environ), disable_file=True)
        return _load(self.profile, dict(os.environ))

    def _key_of_file(self) -> SecretStr | None:
        if self.api_key_file is None:
            return None
        try:
            text = self.api_key_file.read_text("utf-8").strip()
        except (OSError, ValueError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8"
            raise ConfigurationError(
                f"{self.prefix}API_KEY_FILE names {str(self.api_key_file)!r}, which cannot be "
                f"read: {reason}"
            ) from None
        if not text or not text.isascii() or not text.isprintable():
            raise ConfigurationError(
                f"{self.prefix}API_KEY_FILE names {str(self.api_key_file)!r}, which has no API "
                "key: one line of printable characters is expected"
            )
        return SecretStr(text)

    def _tls(
        self, profile: ClientConfigTLS | None, *, has_key: bool, has_our_key: bool
    ) -> bool | TLSConfig:
        from temporalio.service import TLSConfig

        given = {
            "TLS_SERVER_NAME": self.tls_server_name,
            "TLS_SERVER_CA": self.tls_server_ca,
            "TLS_CLIENT_CERT": self.tls_client_cert,
            "TLS_CLIENT_KEY": self.tls_client_key,
        }
        used = [name for name, value in given.items() if value is not None]
        if self.tls is False:
            if used:
                raise ConfigurationError(
                    f"{self.prefix}TLS is false, and {self.prefix}{used[0]} is given; remove one"
                )
            return False
        if self.tls is None and not used:
            if profile is None:
                return has_key
            if profile.disabled and not has_our_key:  # it is not sent in clear text
                return False
        cert, key = self._file("cert", self.tls_client_cert), self._file("key", self.tls_client_key)
        if cert is None and key is None and profile is not None:
            cert = _read(profile.client_cert, _source("cert"), "CERTIFICATE")
            key = _read(profile.client_private_key, _source("key"), "PRIVATE KEY")
        if (cert is None) != (key is None):
            there, missing = ("cert", "key") if key is None else ("key", "cert")
            raise ConfigurationError(
                f"a client certificate needs its private key, and the other way round: "
                f"{self._variables(there)} is given, and {self._variables(missing)} is not"
            )
        authority = self._file("ca", self.tls_server_ca)
        name = self.tls_server_name
        if profile is not None:
            name = name or profile.server_name
            if authority is None:
                authority = _read(profile.server_root_ca_cert, _source("ca"), "CERTIFICATE")
        return TLSConfig(
            server_root_ca_cert=authority, domain=name, client_cert=cert, client_private_key=key
        )

    def _file(self, what: str, path: Path | None) -> bytes | None:
        kind = "PRIVATE KEY" if what == "key" else "CERTIFICATE"
        return _read(path, self.prefix + _VARIABLES[what][0], kind)

    def _variables(self, what: str) -> str:
        ours, temporals = _VARIABLES[what]
        return f"{self.prefix}{ours} ({temporals})"


@dataclass(frozen=True, slots=True, kw_only=True)
class TemporalEndpoint:
    """Where Temporal is and how to connect, with all defaults.

    Attributes:
        prefix: Beginning of the names of the settings' variables, for messages.
        address: Host and port.
        namespace: Namespace.
        api_key: API key.
        tls: Whether, or how, to connect by TLS.
        metadata: Headers of each call.
        is_configured: Whether anything but the defaults says where Temporal is.
    """

    prefix: str
    address: str
    namespace: str
    api_key: str | None = field(repr=False)
    tls: bool | TLSConfig = field(repr=False)
    metadata: Mapping[str, str] = field(repr=False)
    is_configured: bool

    async def connect(self, **options: Any) -> Client:
        """Connect.

        Files were read, and the key is that of :meth:`TemporalTarget.resolve`: connect anew after
        they were renewed. A client that is connected stays so.

        Args:
            options: Further arguments of ``Client.connect``. With ``lazy=True`` the connection is
                made by the first call, and its failure is raised there.

        Raises:
            AccessDeniedError: Temporal refuses the API key.
            BackendUnavailableError: Temporal cannot be reached; the message names the likely cause.
            ConfigurationError: The address has a scheme.
        """
        from temporalio.client import Client

        if "://" in self.address:
            raise ConfigurationError(
                f"the address of Temporal is {self.address!r}: give host:port, without a scheme"
            )
        try:
            return await Client.connect(
                self.address,
                namespace=self.namespace,
                api_key=self.api_key,
                tls=self.tls,
                rpc_metadata=self.metadata,
                **options,
            )
        except (RuntimeError, ValueError) as exc:
            raise self.error(exc) from exc

    def error(self, failure: BaseException, *, backend: str = "temporal") -> StreamqError:
        """Return the error for a connection that could not be made.

        The SDK raises the same class for every reason, so that the text decides.
        """
        is_denied, reason = failed_connection(failure, self.prefix)
        text = f"cannot connect to Temporal at {self.address}: {reason}"
        kind = AccessDeniedError if is_denied else BackendUnavailableError
        return kind(text, backend=backend)


def failed_connection(failure: BaseException, prefix: str) -> tuple[bool, str]:
    """Return whether Temporal refuses us, and the likely cause, for a connection that failed.

    Args:
        failure: The SDK's error.
        prefix: Beginning of the names of the settings' variables.
    """
    text = str(failure)
    for pattern, reason in _REASONS:
        if found := re.search(pattern, text):
            advice = {
                what: f"{prefix}{ours} or {temporals}"
                for what, (ours, temporals) in _VARIABLES.items()
            }
            return reason is _REFUSED, reason.format(*found.groups(), **advice)
    return False, [*_QUOTED.findall(text), text][0]


@asynccontextmanager
async def leaving_sdk() -> AsyncIterator[None]:
    """Give threads of the Temporal SDK time to leave the interpreter, at the end of a command.

    The thread that delivered the last answer needs the interpreter once more. If the interpreter
    ended at that moment, the process would abort (``PyGILState_Release``).
    """
    try:
        yield
    finally:
        await asyncio.sleep(_SDK_SECONDS)


def _load(
    name: str | None, variables: dict[str, str], *, disable_file: bool = False
) -> ClientConfigProfile:
    from temporalio.envconfig import ClientConfigProfile

    try:
        return ClientConfigProfile.load(
            name, disable_file=disable_file, override_env_vars=variables
        )
    except RuntimeError as exc:
        # Only the first line: the others show the line of the file, which may have the API key.
        reason = (str(exc).splitlines() or [type(exc).__name__])[0]
        path = variables.get("TEMPORAL_CONFIG_FILE") or _default_file(variables)
        raise ConfigurationError(
            f"Temporal's configuration (TEMPORAL_..., {path}) cannot be used: {reason}"
        ) from None


def _default_file(variables: Mapping[str, str]) -> str:
    """Return where the SDK looks for ``temporal.toml`` if nothing names another file."""
    home = Path(variables.get("HOME") or "~")
    if sys.platform == "darwin":
        return str(home / "Library/Application Support/temporalio/temporal.toml")
    base = Path(variables.get("XDG_CONFIG_HOME") or home / ".config")
    return str(base / "temporalio/temporal.toml")


def _source(what: str) -> str:
    return f"{_VARIABLES[what][1]}, or temporal.toml,"


def _read(source: Path | str | bytes | None, name: str, kind: str) -> bytes | None:
    """Return PEM data, from a file if the source is a path. No message shows any of it."""
    if source is None:
        return None
    if isinstance(source, Path):
        if _PEM in str(source):
            raise ConfigurationError(
                f"{name} has PEM text where the path of a file is expected; put the text into a "
                "file, or into the variable of Temporal that ends with _DATA"
            )
        try:
            data = source.read_bytes()
        except OSError as exc:
            raise ConfigurationError(
                f"{name} names {seen_value(str(source))}, which cannot be read: {exc.strerror}"
            ) from None
        except ValueError as exc:
            raise ConfigurationError(f"{name} names no file: {exc}") from None
        shown = f"{name} names {seen_value(str(source))}, which"
    else:
        data = source.encode() if isinstance(source, str) else source
        shown = f"the text of {name}"
    if _PEM.encode() not in data or kind.encode() not in data:
        raise ConfigurationError(f"{shown} has no {kind.lower()} in PEM format")
    return data
