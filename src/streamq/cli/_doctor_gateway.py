"""Examines by its settings how the gateway is exposed: who can reach it, and with what."""

from __future__ import annotations

import ipaddress
import socket
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from streamq._errors import ConfigurationError
from streamq._settings import Settings
from streamq.driver import Finding
from streamq.opening._open import configured_driver

from ._serve import is_loopback, own_addresses

if TYPE_CHECKING:
    from streamq.access import Issuer

_DANGEROUS = ("cancel", "delete", "admin")
_FEW_CHARACTERS = 10


def examine_gateway_settings(settings: Settings, issuers: Sequence[Issuer]) -> list[Finding]:
    """Return what the settings say about the gateway.

    Args:
        settings: The settings that the gateway has.
        issuers: The issuers that they name.
    """
    needs_tokens = bool(issuers)
    return [
        _backend(settings, needs_tokens),
        _exposure(settings, needs_tokens),
        *_anonymous(settings, needs_tokens),
        *_tenants(settings),
        *_encryption(settings, needs_tokens),
        *_origins(settings, needs_tokens),
        *_hosts(settings, needs_tokens),
        *_secrets(settings, issuers),
        *_key_files(settings),
    ]


def _backend(settings: Settings, needs_tokens: bool) -> Finding:
    driver, _, _ = configured_driver(settings)
    subject = "backend"
    if driver.capabilities.replay:
        return Finding(subject, True, f"{driver.name} can be read by any number of clients")
    revoked = ", and tokens cannot be revoked" if needs_tokens else ""
    return Finding(
        subject,
        False,
        f"{driver.name} has no replay: a client would take away what others wait for{revoked}",
        "choose another STREAMQ_BACKEND: `streamq backends`",
    )


def _exposure(settings: Settings, needs_tokens: bool) -> Finding:
    subject, host = "who reaches it", settings.gateway_host
    where = _reach(host)
    if where == "this machine":
        return Finding(subject, True, f"{host}: {where} only, and a proxy on it")
    if needs_tokens:
        return Finding(subject, True, f"{host}: {where}, with a token")
    detail = (
        f"{host}: {where}, and nothing asks for credentials: whoever reaches it reads every "
        f"stream of tenant {settings.tenant} and stops what writes it"
    )
    remedy = "configure tokens (`streamq token key`), or bind 127.0.0.1 behind a proxy with a login"
    return Finding(subject, where != "the Internet", detail, remedy, is_warning=True)


def _anonymous(settings: Settings, needs_tokens: bool) -> list[Finding]:
    given = [part.strip().lower() for part in settings.gateway_anonymous.split(",")]
    named = [action for action in _DANGEROUS if action in given]
    if not named or not needs_tokens or is_loopback(settings.gateway_host):
        return []
    return [
        Finding(
            "without a token",
            False,
            f"STREAMQ_GATEWAY_ANONYMOUS lets everybody {', '.join(named)}",
            "leave only read, describe or list, or nothing",
        )
    ]


def _tenants(settings: Settings) -> list[Finding]:
    if not settings.gateway_trust_tenants or is_loopback(settings.gateway_host):
        return []
    return [
        Finding(
            "tenants",
            True,
            "whoever reaches the gateway may read and stop the streams of every tenant",
            "unset STREAMQ_GATEWAY_TRUST_TENANTS unless a proxy in front restricts the paths",
            is_warning=True,
        )
    ]


def _encryption(settings: Settings, needs_tokens: bool) -> list[Finding]:
    if is_loopback(settings.gateway_host):
        return []
    what = "tokens and streams" if needs_tokens else "streams"
    return [
        Finding(
            "encryption",
            True,
            f"port {settings.gateway_port} carries {what} in clear text to whoever is on the way: "
            "the gateway itself has no TLS",
            "put a proxy with TLS in front, and bind an address that only the proxy reaches",
            is_warning=True,
        )
    ]


def _origins(settings: Settings, needs_tokens: bool) -> list[Finding]:
    origins = [each.strip().lower() for each in settings.gateway_origins.split(",") if each.strip()]
    subject, found = "other sites (CORS)", list[Finding]()
    if "*" in origins:
        reader = "with a token that it has" if needs_tokens else "as everybody who opens it"
        found.append(
            Finding(
                subject,
                needs_tokens,
                f"STREAMQ_GATEWAY_ORIGINS=*: any page of the Internet reads streams {reader}",
                "name the origins of your pages, such as https://chat.example.org",
                is_warning=True,
            )
        )
    if "null" in origins:
        found.append(
            Finding(
                subject,
                needs_tokens,
                "the origin null is that of files and sandboxed frames, which any site can make",
                "remove null from STREAMQ_GATEWAY_ORIGINS",
                is_warning=True,
            )
        )
    plain = [each for each in origins if _is_plain(each)]
    if plain:
        found.append(
            Finding(
                subject,
                True,
                f"{plain[0]} has no TLS: whoever is on the way can change its pages",
                "serve it by https, and name that origin",
                is_warning=True,
            )
        )
    named = ", ".join(origins) or "none"
    return found or [Finding(subject, True, f"pages of other origins that may read: {named}")]


def _hosts(settings: Settings, needs_tokens: bool) -> list[Finding]:
    if "*" not in [each.strip() for each in settings.gateway_hosts.split(",")]:
        return []
    return [
        Finding(
            "names",
            needs_tokens,
            "STREAMQ_GATEWAY_HOSTS=*: a site can point a name of its own here and read what its "
            "visitors reach (DNS rebinding)",
            "give the names by which browsers reach the gateway",
            is_warning=True,
        )
    ]


def _secrets(settings: Settings, issuers: Sequence[Issuer]) -> list[Finding]:
    """Examine how easily secrets are guessed; too short ones were refused before."""
    from joserfc.jwk import OctKey

    found: list[Finding] = []
    secrets = {
        f"the key of issuer {issuer.issuer}": key.raw_value
        for issuer in issuers
        for key in getattr(issuer.keys, "keys", ())
        if isinstance(key, OctKey)
    }
    if settings.gateway_ticket_key is not None:
        given = settings.gateway_ticket_key.get_secret_value()
        secrets["STREAMQ_GATEWAY_TICKET_KEY"] = given.encode()
    for name, secret in secrets.items():
        if len(set(secret)) < _FEW_CHARACTERS:
            found.append(
                Finding(
                    "keys",
                    False,
                    f"{name} has only {len(set(secret))} different characters, and can be guessed",
                    "make one with: streamq token key --kind secret FILE",
                )
            )
    values = list(secrets.values())
    if len(set(values)) < len(values):
        found.append(
            Finding(
                "keys",
                False,
                "one secret is used twice: who signs tickets, or another issuer, makes tokens, too",
                "make a secret of its own for each",
            )
        )
    return found


def _key_files(settings: Settings) -> list[Finding]:
    path = settings.token_key_file
    if path is None:
        return []
    found: list[Finding] = []
    try:
        contents, mode = path.read_bytes(), path.stat().st_mode
    except OSError as exc:
        raise ConfigurationError(f"{str(path)!r} cannot be read: {exc.strerror}") from None
    is_public = b"PUBLIC KEY" in contents
    if not is_public and mode & (stat.S_IRWXG | stat.S_IRWXO):
        found.append(
            Finding(
                "keys",
                False,
                f"{path} makes tokens, and other users of this machine can read or change it "
                f"({stat.filemode(mode)})",
                f"chmod 600 {path}",
            )
        )
    if b"PRIVATE KEY" in contents:
        found.append(
            Finding(
                "keys",
                True,
                f"{path} is the private half: whoever gets into the gateway can make tokens",
                _public_half(path),
                is_warning=True,
            )
        )
    return found or [Finding("keys", True, f"{path}: {'public half' if is_public else 'secret'}")]


def _public_half(path: Path) -> str:
    public = path.with_name(path.name + ".pub")
    named = str(public) if public.exists() else "the public half"
    return f"where tokens are only verified, let STREAMQ_TOKEN_KEY_FILE name {named}"


def _is_plain(origin: str) -> bool:
    host = origin.removeprefix("http://").partition(":")[0]
    return origin.startswith("http://") and not (host == "localhost" or is_loopback(host))


def _reach(host: str) -> str:
    """Return from where an address to listen on is reached."""
    addresses = _addresses(host)
    if all(each.is_loopback for each in addresses):
        return "this machine"
    if any(each.is_global for each in addresses):
        return "the Internet"
    return "the networks of this machine"


def _addresses(host: str) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    try:
        found = socket.getaddrinfo(host or "0.0.0.0", None, type=socket.SOCK_STREAM)
    except OSError as exc:
        raise ConfigurationError(
            f"STREAMQ_GATEWAY_HOST is {host!r}, which is no address of this machine: {exc}"
        ) from None
    addresses = [ipaddress.ip_address(str(each[4][0]).partition("%")[0]) for each in found]
    bound = list(dict.fromkeys(addresses))
    return [
        other
        for each in bound
        for other in ([each, *own_addresses(each.version)] if each.is_unspecified else [each])
    ]
