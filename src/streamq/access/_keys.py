"""Keeps the keys of an issuer, and renews those that are published as a JSON Web Key Set.

Design: docs/design/access.md.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import copy
import json
import logging
import math
import os
import re
import time
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwk import ECKey, JWKRegistry, Key, OctKey, OKPKey, RSAKey

from streamq._errors import ConfigurationError, error_text

_MOST_KEYS = 50
_LOOK_SECONDS = 1.0
_FRESH_SECONDS = 1.0
_LEAST_RSA_BITS = 2_048
LEAST_SECRET_BYTES = 32
"""RFC 7518, section 3.2: a key for HS256 has at least as many bits as its hash."""

_SECRET_ALGORITHMS = ("HS256", "HS384", "HS512")
_BY_KEY: dict[str, tuple[str, ...]] = {
    "oct": _SECRET_ALGORITHMS,
    "RSA": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    "P-256": ("ES256",),
    "P-384": ("ES384",),
    "P-521": ("ES512",),
    "Ed25519": ("Ed25519", "EdDSA"),
}
PUBLIC_ALGORITHMS = tuple(
    name for kind, names in _BY_KEY.items() if kind != "oct" for name in names
)
"""Algorithms whose keys may be published."""

ALGORITHMS = (*_SECRET_ALGORITHMS, *PUBLIC_ALGORITHMS)
"""Every algorithm that an issuer may use; ``none`` is not among them."""

_OF_A_FILE = "the name of a file belongs in STREAMQ_TOKEN_KEY_FILE"
_UTF8_MARK = b"\xef\xbb\xbf"
_PEM = b"-----BEGIN"
_SSH_KEY = re.compile(rb"(?:ssh-\w+|ecdsa-sha2-|sk-ssh-|sk-ecdsa-)\S* AAAA")

_logger = logging.getLogger("streamq")

_Stamp: TypeAlias = tuple[int, int, int]
"""What changes when a file is replaced."""


class KeyRing(Protocol):
    """Keys of one issuer."""

    async def find(self, key_id: str | None, algorithm: str) -> Sequence[Key]:
        """Return the keys with which a token may have been signed, few of them.

        Args:
            key_id: The ``kid`` that the token names; compared with the keys' own, and used for
                nothing else.
            algorithm: The ``alg`` that the token names; only keys made for it are returned.

        Raises:
            IssuerUnavailableError: They cannot be fetched, and none are known.
        """

    def twin(self) -> KeyRing:
        """Return the same keys for another event loop; reads and fetches nothing."""

    async def aclose(self) -> None:
        """Release connections. Idempotent."""


class FixedKeys:
    """Keys that stay as they are.

    Args:
        keys: The keys; the first is the one to sign with.
    """

    def __init__(self, keys: Sequence[Key]) -> None:
        self.keys = tuple(keys)

    async def find(self, key_id: str | None, algorithm: str) -> Sequence[Key]:
        """Return the keys with which a token may have been signed."""
        return matching(self.keys, key_id, algorithm)

    def twin(self) -> FixedKeys:
        """Return the same keys for another event loop."""
        return self

    async def aclose(self) -> None:
        """Do nothing."""


class FileKeys:
    """Keys of a file, which is read again after it was replaced.

    While a file cannot be read or used, the keys before it stay, the log says so once, and it is
    tried again: what hinders may end without a change of the file, such as a missing right. It is
    looked at once a second at most, in a thread: the file system of another host may take long, and
    no request waits for it for longer than a second.

    Args:
        path: A JSON Web Key Set, a PEM file, or a secret.
        load: Converts the contents to keys.

    Raises:
        ConfigurationError: The file cannot be used.
    """

    def __init__(self, path: Path, load: Callable[[bytes], Sequence[Key]]) -> None:
        self._path = path
        self._load = load
        self._stamp = self._seen()
        self._refused: tuple[_Stamp | None, str] | None = None
        self._looking: asyncio.Task[None] | None = None
        self._looked_at = -math.inf
        self.keys = tuple(load(read_file(path)))

    async def find(self, key_id: str | None, algorithm: str) -> Sequence[Key]:
        """Return the keys with which a token may have been signed.

        Cancellation: ends the wait; others may wait for the same look at the file.
        """
        if time.monotonic() - self._looked_at >= _FRESH_SECONDS:
            if self._looking is None or self._looking.done():
                look = asyncio.to_thread(self._look)
                self._looking = asyncio.create_task(look, name="streamq-key-file")
            await asyncio.wait({self._looking}, timeout=_LOOK_SECONDS)
        return matching(self.keys, key_id, algorithm)

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    def twin(self) -> FileKeys:
        """Return the same keys for another event loop, also if the file cannot be used now."""
        other = copy.copy(self)
        other._looking = None
        return other

    async def aclose(self) -> None:
        """Wait for no file any more; a thread that reads one ends by itself."""
        task, self._looking = self._looking, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    def _look(self) -> None:
        """Read the file if it was replaced, or could not be used since it was."""
        self._looked_at = time.monotonic()
        stamp = self._seen()
        if stamp == self._stamp:
            self._refused = None
            return
        try:
            self.keys = tuple(self._load(read_file(self._path)))
        except ConfigurationError as exc:
            refused = stamp, exc.message
            if refused != self._refused:
                self._refused = refused
                _logger.warning("the former keys stay in use: %s", exc)
            return
        self._stamp, self._refused = stamp, None

    def _seen(self) -> _Stamp | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino


def matching(keys: Collection[Key], key_id: str | None, algorithm: str) -> Sequence[Key]:
    """Return the keys made for an algorithm: the one of this id, or all that have none."""
    suitable = [key for key in keys if algorithm in algorithms_of(key)]
    if key_id is None:
        return suitable
    named = [key for key in suitable if key.kid == key_id]
    return named or [key for key in suitable if key.get("kid") is None]


def algorithms_of(key: Key) -> tuple[str, ...]:
    """Return the algorithms that a key may be used with; none if it is too weak or not for this."""
    match key:
        case OctKey():
            kind = "oct"
        case RSAKey():
            kind = "RSA" if key.raw_value.key_size >= _LEAST_RSA_BITS else ""
        case ECKey() | OKPKey():
            kind = str(key.get("crv"))
        case _:
            kind = ""
    possible = _BY_KEY.get(kind, ())
    if key.get("use", "sig") != "sig":
        return ()
    stated = key.get("alg")
    return possible if stated is None else tuple(name for name in possible if name == stated)


def published_keys(document: bytes, where: str) -> Sequence[Key]:
    """Return the usable keys of a JSON Web Key Set.

    Keys that are unknown, too weak, for encryption, or secret or private are left out: with one
    that is published, everybody can sign.

    Raises:
        ConfigurationError: It is no key set, or has no usable key, or far too many.
    """
    try:
        entries = json.loads(document)["keys"]
        if not isinstance(entries, list) or len(entries) > _MOST_KEYS:
            raise TypeError(f"keys is no list of at most {_MOST_KEYS} entries")
        found = [key for key in map(_public_key, entries) if key is not None]
    except (ValueError, TypeError, KeyError, RecursionError) as exc:
        raise ConfigurationError(f"{where} is no JSON Web Key Set: {error_text(exc)}") from None
    if not found:
        raise ConfigurationError(
            f"{where} has no key that can verify a token: give RSA keys of at least "
            f"{_LEAST_RSA_BITS} bits, EC keys (P-256, P-384, P-521) or Ed25519 keys"
        )
    return found


def own_keys(contents: bytes, where: str, *, file_advice: str = _OF_A_FILE) -> Sequence[Key]:
    """Return the keys that a setting or a file of one's own gives.

    A PEM file has a private or public key; a JSON document is a key or a key set; anything else is
    a secret for HMAC, unless it is a public key in another format, or the name of a file: others
    know these, and could sign with them.

    Args:
        contents: What it gives.
        where: Which setting or file that is, for messages.
        file_advice: What to do with a key that is in a file, for messages.

    Raises:
        ConfigurationError: It is none of them, or too weak. The message has nothing of it.
    """
    text = contents.strip().removeprefix(_UTF8_MARK).strip()
    try:
        keys = _imported(text)
    except (ValueError, TypeError, KeyError, JoseError):
        raise ConfigurationError(
            f"{where} is no key: give a secret of at least {LEAST_SECRET_BYTES} bytes, a PEM file, "
            f"or a JSON Web Key; {file_advice}"
        ) from None
    for key in keys:
        is_short = isinstance(key, OctKey) and len(key.raw_value) < LEAST_SECRET_BYTES
        if is_short or not algorithms_of(key):
            raise ConfigurationError(
                f"{where} is too weak, or not made for signatures: give a secret of at least "
                f"{LEAST_SECRET_BYTES} bytes (`streamq token key --kind secret FILE` makes one), "
                f"an RSA key of at least {_LEAST_RSA_BITS} bits, or an EC or Ed25519 key"
            )
        key.ensure_kid()
    return keys


def read_file(path: Path) -> bytes:
    """Return what a file of keys contains.

    Raises:
        ConfigurationError: It cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as exc:
        raise ConfigurationError(
            f"the file of keys {str(path)!r} cannot be read: {exc.strerror}"
        ) from None


def _imported(text: bytes) -> list[Key]:
    """Return the keys of a text, however weak."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SecurityWarning)
        if _PEM in text:
            return [_imported_pem(text[text.index(_PEM) :])]  # programs write remarks before it
        if text.startswith((b"{", b"[")):
            document = json.loads(text)
            entries = document.get("keys", [document]) if isinstance(document, dict) else []
            if not entries:
                raise ValueError("no key, and no key set with one")
            return [JWKRegistry.import_key(entry) for entry in entries]
        if len(text) < LEAST_SECRET_BYTES or _is_known_to_others(text):
            raise ValueError("no secret")
        return [OctKey.import_key(text)]


def _is_known_to_others(text: bytes) -> bool:
    """Whether a text that could be a secret is a public key, or the name of a file."""
    if _SSH_KEY.search(text) is not None or os.path.isfile(text):
        return True
    with contextlib.suppress(ValueError):
        return _is_public_key(text) or _is_public_key(base64.b64decode(text))
    return False


def _is_public_key(der: bytes) -> bool:
    try:
        serialization.load_der_public_key(der)
    except ValueError:
        return False
    except UnsupportedAlgorithm:
        pass
    return True


def _imported_pem(text: bytes) -> Key:
    for kind in (OKPKey, ECKey, RSAKey):
        try:
            return kind.import_key(text)
        except (ValueError, TypeError, JoseError):
            continue
    raise ValueError("no key in this file")


def _public_key(entry: Any) -> Key | None:
    if not isinstance(entry, Mapping):
        raise TypeError("a key is no object")
    if entry.get("kty") == "oct" or "d" in entry:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SecurityWarning)
            key = JWKRegistry.import_key(dict(entry))
    except (ValueError, TypeError, KeyError, JoseError):
        return None
    return key if algorithms_of(key) else None
