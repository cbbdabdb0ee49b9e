"""The driver's settings, and the connections that its URL describes.

Design: docs/design/redis.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import parse_qs, urlsplit

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict
from redis.asyncio import ConnectionPool, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from streamq.driver import CredentialCall, CredentialSource, DriverSettings

from ._naming import KeySpace
from .requests._resolver import ResolvedConnection, ResolvedSSLConnection

CREDENTIALS = frozenset({"username", "password"})
"""Names of what a source of credentials may return."""

_URL_OPTIONS = {"db", "username", "password"}


class RedisSettings(DriverSettings):
    """Settings of the Redis driver, from ``STREAMQ_REDIS_...`` or the table ``[redis]``."""

    model_config = SettingsConfigDict(env_prefix="STREAMQ_REDIS_")
    toml_table = "redis"

    url: SecretStr = Field(
        default=SecretStr("redis://127.0.0.1:6379/0"),
        description="server as redis://[user:password@]host:port/db, rediss://... or unix://path",
    )
    password_file: Path | None = Field(
        default=None,
        description="file with the password, read anew for each connection; the user's name is "
        "that of the URL",
    )
    credentials: CredentialCall | str | None = Field(
        default=None,
        description="function that returns `username` and `password`, called for each connection: "
        "an entry point in the group `streamq.credentials`, or `module:function`",
    )
    key_prefix: str = Field(
        default="streamq",
        description="beginning of every key, to share a database or to restrict an ACL",
    )
    listing: Literal["scan", "index"] = Field(
        default="scan",
        description="how streams are listed: `scan` walks the keys of the whole database; `index` "
        "also keeps the names of each tenant's streams in a key of the tenant, so that an ACL can "
        "separate tenants",
    )
    connect_timeout_seconds: Annotated[float, Field(gt=0)] = Field(
        default=5.0, description="longest time to connect and to authenticate"
    )
    operation_timeout_seconds: Annotated[float, Field(gt=0)] = Field(
        default=10.0,
        description="longest time to wait for an answer, beyond a blocking read's own wait",
    )
    block_seconds: Annotated[float, Field(ge=0.1, le=60)] = Field(
        default=5.0,
        description="length of one blocking read; a dead connection is noticed soon after it",
    )
    lookup_seconds: Annotated[float, Field(ge=0.1)] = Field(
        default=15.0,
        description="how often it is checked that the server's name still leads to the same server",
    )
    tail_bytes: Annotated[int, Field(ge=1024)] = Field(
        default=262_144,
        description="newest data kept in memory for each stream that is being followed",
    )

    def credential_source(self) -> CredentialSource:
        """Return what gives credentials to each connection."""
        where = ConnectionPool.from_url(self.url.get_secret_value().strip()).connection_kwargs
        fixed = {name: where[name] for name in CREDENTIALS if where.get(name)}
        files = {} if self.password_file is None else {"password": self.password_file}
        return CredentialSource(
            "STREAMQ_REDIS_", CREDENTIALS, call=self.credentials, files=files, fixed=fixed
        )

    def key_space(self) -> KeySpace:
        """Return what names the keys of streams."""
        return KeySpace(self.key_prefix, is_indexed=self.listing == "index")

    @field_validator("key_prefix")
    @classmethod
    def _key_prefix_is_plain(cls, value: str) -> str:
        if not value or not value.isprintable() or "{" in value or "}" in value:
            raise ValueError("must be printable and not empty, without '{' and '}'")
        return value

    @field_validator("url")
    @classmethod
    def _url_is_usable(cls, value: SecretStr) -> SecretStr:
        make_pool(value)
        return value


def make_pool(url: SecretStr) -> ConnectionPool:
    """Return a pool that makes connections of redis-py to the server of a URL.

    Raises:
        ValueError: The URL cannot be used. The message repeats nothing of it but names of options.
    """
    text = url.get_secret_value().strip()
    try:
        parts = urlsplit(text)
        is_local = parts.scheme == "unix"
        pool = ConnectionPool.from_url(
            text,
            # Only replies may arrive: no push messages, no answers to health checks.
            protocol=2,
            health_check_interval=0,
            # Connection has deadlines of its own: redis-py's would end a long blocking read.
            socket_timeout=None,
            socket_connect_timeout=None,
            retry=Retry(NoBackoff(), 0),
            **({} if is_local else {"socket_keepalive": True}),
        )
        database = parts.path.strip("/")
        if not is_local:
            is_secure = issubclass(pool.connection_class, SSLConnection)
            pool.connection_class = ResolvedSSLConnection if is_secure else ResolvedConnection
        is_valid = bool(parts.path) if is_local else database.isdigit() or not database
    except ValueError:
        is_valid = False
    if not is_valid:
        raise ValueError(
            "must be redis://[user:password@]host:port/db, rediss://... or unix:///path, special "
            "characters in user name and password percent-encoded"
        )
    unknown = sorted(
        name
        for name in parse_qs(parts.query).keys() - _URL_OPTIONS
        if not (parts.scheme == "rediss" and name.startswith("ssl_"))
    )
    if unknown:
        raise ValueError(f"has options that are not supported: {', '.join(unknown)}")
    try:
        connection = pool.make_connection()  # type: ignore[no-untyped-call]
        if isinstance(connection, SSLConnection):
            connection.ssl_context.get()  # reads the files now, and not at the first use
    except (TypeError, ValueError, OSError, RedisError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else type(exc).__name__
        raise ValueError(f"has ssl_ options that cannot be used: {reason}") from None
    return pool


def address_of(pool: ConnectionPool) -> str:
    """Return the address that a pool connects to, without credentials, for messages."""
    where = pool.connection_kwargs
    return str(where.get("path") or f"{where.get('host', 'localhost')}:{where.get('port', 6379)}")
