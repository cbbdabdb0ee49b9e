"""Translates errors of the server, of libpq and of psycopg into streamq's.

The server states the cause of an error as an SQLSTATE of five characters, the first two of which
are its class. A table has a rule for every class, and for each code that means something else than
its class. A connection that is refused has no SQLSTATE: libpq returns the server's text alone. A
second table has the texts that name a code.

Design: docs/design/postgres.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import psycopg
import psycopg.errors as pe

from streamq.driver import (
    AccessDeniedError,
    BackendError,
    BackendUnavailableError,
    ConfigurationError,
    StorageFullError,
    StreamqError,
    ThrottledError,
    mask_credentials,
)

BACKEND = "postgres"


class RefusedError(pe.OperationalError):
    """A connection was refused, or could not be made; without the password that psycopg keeps.

    Attributes:
        code: The SQLSTATE that the server's text stands for; empty if it stands for none.
        is_passing: Whether the credentials were refused, and their source may return others with
            the next try.
    """

    def __init__(self, text: str, code: str = "", *, is_passing: bool = False) -> None:
        super().__init__(text)
        self.code = code
        self.is_passing = is_passing


class GivenUpError(pe.OperationalError):
    """A connection was in order; its server was given up for what another one has learnt."""


@dataclass(frozen=True, slots=True)
class _Rule:
    """What an SQLSTATE, or a class of them, becomes.

    Attributes:
        error: Error of streamq.
        message: Template of its message, with ``{at}`` and ``{why}``.
        speaks_of_server: Whether no connection should use this server now.
    """

    error: type[StreamqError]
    message: str
    speaks_of_server: bool = False


_ANSWERED = _Rule(BackendError, "PostgreSQL at {at} answered: {why}")
_DENIED = _Rule(
    AccessDeniedError,
    "PostgreSQL at {at} refuses our credentials: {why}; check those in STREAMQ_POSTGRES_URL, "
    "STREAMQ_POSTGRES_PASSWORD_FILE or STREAMQ_POSTGRES_CREDENTIALS, and pg_hba.conf",
)
_NO_RIGHT = _Rule(
    AccessDeniedError,
    "PostgreSQL at {at} does not permit this: {why}; the README of streamq-postgres lists the "
    "rights that are needed, and `streamq doctor` those that are missing",
)
_CUT = _Rule(
    BackendUnavailableError,
    "cannot reach PostgreSQL at {at} ({why}); is it running? set STREAMQ_POSTGRES_URL",
    speaks_of_server=True,
)
_LATER = _Rule(BackendUnavailableError, "PostgreSQL at {at} cannot do this now: {why}")
_DOWN = _Rule(
    BackendUnavailableError, "PostgreSQL at {at} cannot serve now: {why}", speaks_of_server=True
)
_READ_ONLY = _Rule(
    BackendUnavailableError,
    "PostgreSQL at {at} is read only (a standby, a failover under way, or "
    "default_transaction_read_only): {why}",
    speaks_of_server=True,
)
_FULL = _Rule(
    StorageFullError,
    "PostgreSQL at {at} has no room left on its disk: {why}; free some, or delete streams",
)
_BUSY = _Rule(
    ThrottledError,
    "PostgreSQL at {at} has too many connections: {why}; raise max_connections or put a pooler in "
    "front of it",
)
_NO_DATABASE = _Rule(
    ConfigurationError,
    "there is no such database on PostgreSQL at {at}: {why}; create it, or correct "
    "STREAMQ_POSTGRES_URL",
)
_NO_SCHEMA = _Rule(
    BackendError,
    "PostgreSQL at {at} lacks what streamq has created there: {why}; run `streamq doctor --create`",
)
_POOLED = _Rule(
    BackendUnavailableError,
    "PostgreSQL at {at} has forgotten a prepared statement: {why}; if a connection pooler is in "
    "between, set STREAMQ_POSTGRES_POOLER=true",
    speaks_of_server=True,
)

# Every class that psycopg knows; what stands for a defect or a misuse is a BackendError.
_BY_CLASS = {
    **dict.fromkeys(
        ("02", "03", "09", "0A", "0B", "0F", "0L", "0P", "0Z", "10", "20", "21", "22", "23", "24"),
        _ANSWERED,
    ),
    **dict.fromkeys(("25", "26", "27", "2B", "2D", "2F", "34", "38", "39", "3B", "42"), _ANSWERED),
    **dict.fromkeys(("44", "54", "55", "58", "F0", "HV", "P0", "XX"), _ANSWERED),
    "08": _CUT,
    "28": _DENIED,
    "3D": _NO_DATABASE,
    "3F": _NO_SCHEMA,
    "40": _LATER,  # rolled back: a deadlock, or a serialization failure
    "53": _LATER,  # memory, locks
    "57": _DOWN,
    "72": _LATER,
}
_BY_CODE = {
    "25006": _READ_ONLY,
    "25P03": _CUT,  # idle_in_transaction_session_timeout
    "25P04": _CUT,  # transaction_timeout
    "26000": _POOLED,
    "42P05": _POOLED,
    "42501": _NO_RIGHT,
    "42P01": _NO_SCHEMA,
    "42703": _NO_SCHEMA,
    "42883": _NO_SCHEMA,
    "53100": _FULL,
    "53300": _BUSY,
    "55006": _LATER,  # object in use
    "55P03": _LATER,  # lock_timeout
    "57014": _LATER,  # statement_timeout, or an operator
    "57P04": _NO_DATABASE,
    "57P05": _CUT,  # idle_session_timeout
}

# In the words of the server, of pgbouncer, and of libpq. The first match wins.
_TEXTS = tuple(
    (re.compile(pattern, re.IGNORECASE), code)
    for pattern, code in (
        (
            r"password authentication failed|SASL authentication failed|no password supplied",
            "28P01",
        ),
        (r"no pg_hba\.conf entry|pg_hba\.conf rejects|authentication failed for user", "28000"),
        (r'role ".*" does not exist|role ".*" is not permitted to log in|no such user', "28000"),
        (r"certificate authentication failed|requires a valid client certificate", "28000"),
        (r"permission denied for database|is not currently accepting", "42501"),
        (r'database ".*" does not exist|no such database', "3D000"),
        (r"too many clients|connection slots are reserved|too many connections", "53300"),
        (r"no more connections allowed|query_wait_timeout", "53300"),
        (
            r"is starting up|is shutting down|in recovery mode|not yet accepting|not accepting",
            "57P03",
        ),
        (r"session is read-only|in hot standby mode|server is not in hot standby", "25006"),
        (r"No space left on device", "53100"),
    )
)
_FATAL = re.compile(r"(?:FATAL|PANIC|ERROR|SCHWERWIEGEND|FATALE?):\s+")
_OF_LIBPQ = re.compile(
    r"^connection (?:failed|is bad): |connection to server (?:at|on) .*? failed: "
)


def code_of_text(text: str) -> str:
    """Return the SQLSTATE that the text of a refused connection stands for; empty if none."""
    return next((code for pattern, code in _TEXTS if pattern.search(text)), "")


def short_reason(text: str) -> str:
    """Return the words of the server, or of libpq, in one line, without addresses."""
    first = text.strip().split("\nMultiple connection attempts failed")[0]
    line = " ".join(_OF_LIBPQ.sub("", first).split())
    return _FATAL.sub("", line).rstrip(".")


def code_of(error: Exception) -> str:
    """Return the SQLSTATE of an error; empty if it has none."""
    return error.code if isinstance(error, RefusedError) else getattr(error, "sqlstate", "") or ""


def speaks_of_server(error: Exception) -> bool:
    """Whether an error says that this server should not be used now, by any connection."""
    return _rule_of(error).speaks_of_server


def to_streamq(error: Exception, stream: str | None = None, *, address: str) -> StreamqError | None:
    """Return streamq's error for one of psycopg or the network; ``None`` if it is neither.

    Args:
        error: The exception.
        stream: Stream that the call was about, as ``tenant/name``.
        address: Where the server is, without credentials.
    """
    if not isinstance(error, (psycopg.Error, psycopg.Warning, OSError)):
        return None
    rule = _rule_of(error)
    why = mask_credentials(_reason(error))
    found = rule.error(rule.message.format(at=address, why=why), backend=BACKEND, stream=stream)
    if isinstance(error, RefusedError) and error.is_passing:
        found.retryable = True
    return found


def _rule_of(error: Exception) -> _Rule:
    code = code_of(error)
    if code:
        return _BY_CODE.get(code) or _BY_CLASS.get(code[:2], _ANSWERED)
    # Without an SQLSTATE: libpq lost the connection, or psycopg found it closed.
    if isinstance(error, (pe.OperationalError, pe.InterfaceError, OSError)):
        return _CUT
    return _ANSWERED


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error) or type(error).__name__
    if isinstance(error, psycopg.Error) and error.diag.message_primary:
        return error.diag.message_primary
    return short_reason(str(error)) or type(error).__name__
