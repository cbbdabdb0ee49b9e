"""Examines by its settings how the gateway is exposed: who can reach it, and with what."""

from __future__ import annotations

import ipaddress
import socket
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from streamq._comma_lists import listed
from streamq._errors import ConfigurationError
from streamq._loopback import is_loopback
from streamq._networks import networks_of
from streamq._settings import Settings
from streamq.driver import Finding
from streamq.opening._open import configured_driver

from ._serve import own_addresses

if TYPE_CHECKING:
    from streamq.access import Issuer

_DANGEROUS = ("cancel", "delete", "admin")
_FEW_CHARACTERS = 10
_LEAST_PREFIX = {4: 8, 6: 16}
_THIS_MACHINE = "this machine"
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_OTHERS_USE = stat.S_IRWXG | stat.S_IRWXO


def examine_gateway_settings(settings: Settings, issuers: Sequence[Issuer]) -> list[Finding]:
    """Return what the settings say about the gateway.

    Args:
        settings: The settings that the gateway has.
        issuers: The issuers that they name.
    """
    from streamq.gateway._authority import actions_without_token

    needs_tokens, where = bool(issuers), _reach(settings.gateway_host)
    permitted = [*actions_without_token(settings, needs_tokens=needs_tokens)]
    found = [
        _backend(settings, needs_tokens),
        _exposure(settings, where, permitted, needs_tokens),
        _cancelling(settings, issuers),
        *_origins(settings, needs_tokens),
        *_hosts(settings, needs_tokens),
        *_proxies(settings),
        *_secrets(settings, issuers),
        *_key_files(settings, issuers),
    ]
    if where != _THIS_MACHINE:
        found += _anonymous(permitted)
        found += _tenants(settings, permitted)
        found.append(_encryption(settings, needs_tokens))
    return found


def _backend(settings: Settings, needs_tokens: bool) -> Finding:
    driver, _, _ = configured_driver(settings)
    subject = "backend"
    if not driver.capabilities.cross_process:
        return Finding(
            subject,
            True,
            f"{driver.name} shows the streams of one process only: `streamq serve` never shows any",
            "choose another STREAMQ_BACKEND, or mount create_app() where the producers run",
            is_warning=True,
        )
    if driver.capabilities.replay:
        return Finding(subject, True, f"{driver.name} can be read by any number of clients")
    revoked = ", and tokens cannot be revoked" if needs_tokens else ""
    return Finding(
        subject,
        False,
        f"{driver.name} has no replay: a client would take away what others wait for{revoked}",
        "choose another STREAMQ_BACKEND: `streamq backends`",
    )


def _exposure(
    settings: Settings, where: str, permitted: Sequence[str], needs_tokens: bool
) -> Finding:
    subject, host = "who reaches it", settings.gateway_host
    if where == _THIS_MACHINE:
        return Finding(subject, True, f"{host}: {where} only, and a proxy on it")
    if not permitted:
        with_what = "with a token" if needs_tokens else "and nobody may do anything"
        return Finding(subject, True, f"{host}: {where}, {with_what}")
    asked = "does not need a token" if needs_tokens else "is not asked for credentials"
    detail = (
        f"{host}: {where}, and whoever reaches it {asked} to {', '.join(permitted)} every stream "
        f"of tenant {settings.tenant}"
    )
    remedy = "configure tokens (`streamq token key`), or bind 127.0.0.1 behind a proxy with a login"
    if needs_tokens:
        remedy = "unset STREAMQ_GATEWAY_ANONYMOUS unless everybody is meant"
    is_right = where != "the Internet" or needs_tokens
    return Finding(subject, is_right, detail, remedy, is_warning=True)


def _anonymous(permitted: Sequence[str]) -> list[Finding]:
    named = [action for action in _DANGEROUS if action in permitted]
    if not named:
        return []
    return [
        Finding(
            "without a token",
            False,
            f"STREAMQ_GATEWAY_ANONYMOUS lets everybody {', '.join(named)}",
            "leave only read, describe or list, or nothing",
        )
    ]


def _tenants(settings: Settings, permitted: Sequence[str]) -> list[Finding]:
    if not settings.gateway_trust_tenants or not permitted:
        return []
    return [
        Finding(
            "tenants",
            True,
            f"whoever reaches the gateway may {', '.join(permitted)} the streams of every tenant",
            "unset STREAMQ_GATEWAY_TRUST_TENANTS unless a proxy in front restricts the paths",
            is_warning=True,
        )
    ]


def _cancelling(settings: Settings, issuers: Sequence[Issuer]) -> Finding:
    from streamq.gateway._cancel_tenants import cancelling_tenants

    subject, tenants = "who may stop workflows", sorted(cancelling_tenants(settings, issuers))
    if not tenants:
        detail = (
            "no tenant: requests may name several, and STREAMQ_GATEWAY_CANCEL_TENANTS is not set"
        )
        return Finding(subject, True, detail)
    named = ", ".join(tenants)
    if len(tenants) == 1:
        return Finding(subject, True, f"whoever has the action cancel in tenant {named}")
    return Finding(
        subject,
        True,
        f"tenants {named}: each may stop the workflows of the others",
        "give each a Temporal namespace and a gateway, unless they trust one another",
        is_warning=True,
    )


def _encryption(settings: Settings, needs_tokens: bool) -> Finding:
    what = "tokens and streams" if needs_tokens else "streams"
    return Finding(
        "encryption",
        True,
        f"port {settings.gateway_port} carries {what} in clear text to whoever is on the way: "
        "the gateway itself has no TLS",
        "put a proxy with TLS in front, and bind an address that only the proxy reaches",
        is_warning=True,
    )


def _origins(settings: Settings, needs_tokens: bool) -> list[Finding]:
    origins = listed(settings.gateway_origins.lower())
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
    if "*" not in listed(settings.gateway_hosts):
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


def _proxies(settings: Settings) -> list[Finding]:
    networks = networks_of(settings.gateway_trusted_proxies)
    wide = [str(each) for each in networks if each.prefixlen < _LEAST_PREFIX[each.version]]
    if not wide:
        return []
    return [
        Finding(
            "proxies",
            True,
            f"STREAMQ_GATEWAY_TRUSTED_PROXIES has {', '.join(wide)}: clients can name any address "
            "as their own, and HTTPS that they do not use, so that no bound of a client holds",
            "give the addresses of the proxies alone",
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


def _key_files(settings: Settings, issuers: Sequence[Issuer]) -> list[Finding]:
    """Examine who may read and change the files that decide which tokens are good."""
    from joserfc.jwk import OctKey

    from streamq.access._keys import FileKeys

    found: list[Finding] = []
    if settings.token_issuers is not None:
        found.append(_file(settings.token_issuers, "says whose tokens are accepted", _OTHERS_WRITE))
    for issuer in issuers:
        if not isinstance(issuer.keys, FileKeys):
            continue
        path, keys = issuer.keys.path, issuer.keys.keys
        if not any(key.is_private for key in keys):
            found.append(_file(path, "verifies tokens", _OTHERS_WRITE))
            continue
        found.append(_file(path, "makes tokens", _OTHERS_USE))
        if found[-1].ok and not any(isinstance(key, OctKey) for key in keys):
            found[-1] = Finding(
                "keys",
                True,
                f"{path} is the private half: whoever gets into the gateway can make tokens",
                _public_half(path),
                is_warning=True,
            )
    return found


def _file(path: Path, purpose: str, forbidden: int) -> Finding:
    try:
        mode = path.stat().st_mode
    except OSError as exc:
        raise ConfigurationError(f"{str(path)!r} cannot be read: {exc.strerror}") from None
    if not mode & forbidden:
        return Finding("keys", True, f"{path} {purpose}")
    does = "change it" if forbidden == _OTHERS_WRITE else "read or change it"
    return Finding(
        "keys",
        False,
        f"{path} {purpose}, and other users of this machine can {does} ({stat.filemode(mode)})",
        f"chmod {'go-w' if forbidden == _OTHERS_WRITE else '600'} {path}",
    )


def _public_half(path: Path) -> str:
    public = path.with_name(path.name + ".pub")
    named = str(public) if public.exists() else "the public half"
    return f"where tokens are only verified, give the gateway {named}"


def _is_plain(origin: str) -> bool:
    parts = urlsplit(origin)
    return parts.scheme == "http" and not is_loopback(parts.hostname or "")


def _reach(host: str) -> str:
    """Return from where an address to listen on is reached."""
    addresses = _addresses(host)
    if all(each.is_loopback for each in addresses):
        return _THIS_MACHINE
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
