"""Defines which issuers' tokens are accepted, and reads them from a file.

Design: docs/design/access.md.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from streamq._errors import ConfigurationError
from streamq._events import SYSTEM_TENANT, user_stream
from streamq._loopback import is_loopback
from streamq._settings import Settings
from streamq.driver import seen_value

from ._claims import TENANT
from ._keys import (
    ALGORITHMS,
    PUBLIC_ALGORITHMS,
    FileKeys,
    FixedKeys,
    KeyRing,
    own_keys,
    published_keys,
)
from ._moments import MOST_SECONDS, moment
from ._remote_keys import RemoteKeys

OWN_ISSUER = "streamq"
"""Issuer and audience of the tokens that ``streamq token`` makes."""

_KEY_FIELDS = ("jwks_url", "jwks_file", "key_file")
_FIELDS = {"issuer", "audience", "algorithms", "tenant", "tenant_claim", "tenants", *_KEY_FIELDS}
_FIELDS |= {"max_lifetime_seconds"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """Who issues tokens, and for which tenants.

    Attributes:
        issuer: The ``iss`` of its tokens, to the letter.
        audience: What their ``aud`` has to contain: the name of this gateway.
        keys: Its keys.
        algorithms: Algorithms that its tokens may be signed with.
        tenant: The tenant of all its tokens; or ``None``, and the claim states it.
        tenant_claim: The claim with the tenant.
        tenants: Tenants that the claim may state; empty for any, which only an issuer that is
            trusted with all of them should get.
        max_lifetime_seconds: Tokens that end later than this from now are refused; ``None`` for
            no limit.
    """

    issuer: str
    audience: str
    keys: KeyRing
    algorithms: frozenset[str]
    tenant: str | None = None
    tenant_claim: str = TENANT
    tenants: frozenset[str] = field(default=frozenset())
    max_lifetime_seconds: float | None = None

    def tenant_of(self, claims: Mapping[str, Any]) -> str | None:
        """Return the tenant of a token, if its issuer may speak for it."""
        if self.tenant is not None:
            return self.tenant
        named = claims.get(self.tenant_claim)
        if not isinstance(named, str) or (self.tenants and named not in self.tenants):
            return None
        return named if is_tenant(named) else None


def configured_issuers(settings: Settings) -> list[Issuer]:
    """Return the issuers that the settings name; none if tokens are not used.

    Raises:
        ConfigurationError: A setting cannot be used.
    """
    own = _own_issuer(settings)
    others = [] if settings.token_issuers is None else _read_issuers(settings.token_issuers)
    return [*([] if own is None else [own]), *others]


def _own_issuer(settings: Settings) -> Issuer | None:
    key, path = settings.token_key, settings.token_key_file
    if key is not None and path is not None:
        raise ConfigurationError(
            "STREAMQ_TOKEN_KEY and STREAMQ_TOKEN_KEY_FILE exclude each other; give one of them"
        )
    if key is not None:
        found = own_keys(key.get_secret_value().encode(), "STREAMQ_TOKEN_KEY")
        keys: KeyRing = FixedKeys(found)
    elif path is not None:
        where = f"the file {str(path)!r} (STREAMQ_TOKEN_KEY_FILE)"
        keys = FileKeys(path, lambda contents: own_keys(contents, where))
    else:
        return None
    return Issuer(
        issuer=OWN_ISSUER, audience=OWN_ISSUER, keys=keys, algorithms=frozenset(ALGORITHMS)
    )


def _read_issuers(path: Path) -> list[Issuer]:
    where = f"the file of issuers {str(path)!r}"
    try:
        document = tomllib.loads(path.read_text("utf-8-sig"))
    except OSError as exc:
        raise ConfigurationError(f"{where} cannot be read: {exc.strerror}") from None
    except (ValueError, RecursionError) as exc:
        raise ConfigurationError(f"{where} is no TOML: {exc}") from None
    entries = document.get("issuer")
    if not isinstance(entries, list) or not entries or document.keys() != {"issuer"}:
        raise ConfigurationError(f"{where} has to have one or more tables [[issuer]], and no other")
    issuers = [_issuer(entry, where, path.parent) for entry in entries]
    names = [issuer.issuer for issuer in issuers]
    for name in names:
        if names.count(name) > 1:
            raise ConfigurationError(f"{where} has issuer {name!r} twice")
    return issuers


def _issuer(entry: Mapping[str, Any], where: str, folder: Path) -> Issuer:
    unknown = entry.keys() - _FIELDS
    if unknown:
        raise ConfigurationError(
            f"{where} has the unknown field {min(unknown)!r}; known are "
            f"{', '.join(sorted(_FIELDS))}"
        )
    name, audience = _text(entry, "issuer", where), _text(entry, "audience", where)
    where = f"issuer {name!r} in {where}"
    given = [key for key in _KEY_FIELDS if key in entry]
    if len(given) != 1:
        raise ConfigurationError(f"{where} needs one of {', '.join(_KEY_FIELDS)}")
    kind, place = given[0], _text(entry, given[0], where)
    possible = ALGORITHMS if kind == "key_file" else PUBLIC_ALGORITHMS
    keys: KeyRing
    match kind:
        case "jwks_url":
            keys = RemoteKeys(_checked_url(place, where), issuer=name)
        case "jwks_file":
            keys = FileKeys(folder / place, lambda found: published_keys(found, where))
        case _:
            keys = FileKeys(folder / place, lambda found: own_keys(found, where))
    tenant = _text(entry, "tenant", where) if "tenant" in entry else None
    tenants = _texts(entry, "tenants", where)
    if tenant is not None and not is_tenant(tenant):
        raise ConfigurationError(
            f"{where} has tenant {tenant!r}; give 1 to 64 letters, digits, '.', '_' or '-', and "
            f"not {SYSTEM_TENANT!r}"
        )
    if (tenant is None) == ("tenant_claim" not in entry):
        raise ConfigurationError(f"{where} needs tenant or tenant_claim, and not both")
    if tenant is None and not tenants:
        raise ConfigurationError(
            f"{where} needs tenants, the list of those that its tokens may name; ['*'] for any"
        )
    return Issuer(
        issuer=name,
        audience=audience,
        keys=keys,
        algorithms=_algorithms(entry, possible, where),
        tenant=tenant,
        tenant_claim=_text(entry, "tenant_claim", where) if tenant is None else TENANT,
        tenants=frozenset() if "*" in tenants else frozenset(tenants),
        max_lifetime_seconds=_lifetime(entry, where),
    )


def _text(entry: Mapping[str, Any], field: str, where: str) -> str:
    value = entry.get(field)
    if not isinstance(value, str) or not value.strip():
        raise ConfigurationError(f"{where} needs {field}, a text")
    return value


def _texts(entry: Mapping[str, Any], field: str, where: str) -> list[str]:
    values = entry.get(field, [])
    if not isinstance(values, list) or not all(isinstance(each, str) for each in values):
        raise ConfigurationError(f"{where} has {field} that is no list of texts")
    return values


def _algorithms(entry: Mapping[str, Any], possible: Collection[str], where: str) -> frozenset[str]:
    wanted = _texts(entry, "algorithms", where)
    if not wanted:
        raise ConfigurationError(f"{where} needs algorithms, for example ['RS256']")
    for name in wanted:
        if name not in possible:
            raise ConfigurationError(
                f"{where} has the algorithm {name!r}; with these keys it is one of "
                f"{', '.join(possible)}"
            )
    return frozenset(wanted)


def _lifetime(entry: Mapping[str, Any], where: str) -> float | None:
    value = entry.get("max_lifetime_seconds")
    if value is None:
        return None
    found = moment(value)  # no lifetime ends later than the last moment
    if not found:
        raise ConfigurationError(
            f"{where} has max_lifetime_seconds {value!r:.40}; give a number above 0, at most "
            f"{MOST_SECONDS:.0f}"
        )
    return found


def _checked_url(url: str, where: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    schemes = ("https", "http") if is_loopback(parts.hostname or "") else ("https",)
    if not parts.hostname or parts.scheme not in schemes:
        raise ConfigurationError(f"{where} has jwks_url {seen_value(url)}; give an https address")
    if parts.username or parts.password:
        raise ConfigurationError(f"{where} has a jwks_url with a password; keys are public")
    return url


def is_tenant(name: str) -> bool:
    """Whether tokens may name this tenant."""
    try:
        user_stream(name, "x")
    except ValueError:
        return False
    return True
