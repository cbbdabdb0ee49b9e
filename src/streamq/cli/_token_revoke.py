"""``streamq token revoke``: revokes one token, or all that a subject got before a moment."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from streamq._errors import ConfigurationError
from streamq._settings import load_settings

from ._lookup import backend_place, missing_database
from ._terminal import needs_extra, run_async, show_notice


def revoke(
    jti: Annotated[str | None, typer.Option(help="Id of the token.")] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="File with the token; - reads standard input.")
    ] = None,
    subject: Annotated[
        str | None, typer.Option(help="Whose tokens: all that were issued before --before.")
    ] = None,
    before: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="With --subject: 2026-01-31T12:00:00Z, or seconds since 1970.",
            show_default="5 s from now: issuers' clocks may be ahead",
        ),
    ] = None,
    expires: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="With --jti: when the token ends by itself, so that it can be forgotten then.",
        ),
    ] = None,
    issuer: Annotated[
        str | None,
        typer.Option(help="Who issued them (iss).", show_default="the only one configured"),
    ] = None,
    tenant: Annotated[
        str | None,
        typer.Option(
            help="Tenant of the tokens.", show_default="that of the issuer, or STREAMQ_TENANT"
        ),
    ] = None,
) -> None:
    """Revoke tokens on every gateway of the backend; their connections end.

    \b
    Examples:
      streamq token revoke --token-file token.txt
      streamq token revoke --jti 5Yk1WJb6fTqN --expires 2026-01-31T12:00:00Z
      streamq token revoke --subject ada
    """
    with needs_extra("gateway"):
        from streamq.access import revoke_subject, revoke_token
    if sum(each is not None for each in (jti, token_file, subject)) != 1:
        raise ConfigurationError("give one of --jti, --token-file and --subject")
    if before is not None and subject is None:
        raise ConfigurationError("--before belongs to --subject")
    if expires is not None and jti is None:
        raise ConfigurationError("--expires belongs to --jti")
    if token_file is not None and (issuer is not None or tenant is not None):
        raise ConfigurationError("the token states issuer and tenant; leave these options out")
    settings = load_settings()

    async def work() -> int:
        if (missing := missing_database(settings)) is not None:
            raise ConfigurationError(
                f"nothing was revoked: file {missing} of backend {settings.backend} does not "
                "exist, so no gateway reads it; a relative STREAMQ_SQLITE_PATH is resolved from "
                "this directory: run this where the gateway runs, or give the path from the root"
            )
        if subject is not None:
            revocation = await revoke_subject(
                subject,
                before=None if before is None else _time_given("--before", before),
                issuer=issuer,
                tenant=tenant,
                settings=settings,
            )
        else:
            revocation = await revoke_token(
                None if token_file is None else read_token(token_file),
                token_id=jti,
                issuer=issuer,
                tenant=tenant,
                expires_at=None if expires is None else _time_given("--expires", expires),
                settings=settings,
            )
        show_notice(
            f"revoked {revocation.concerns}, if there are any ({backend_place(settings)}): "
            "gateways that reach this backend refuse them within 2 s, others refuse all tokens "
            f"after {settings.gateway_revocation_seconds:g} s"
        )
        return 0

    run_async(work)


def read_token(path: Path) -> str:
    """Return the token in a file; ``-`` is standard input.

    Raises:
        ConfigurationError: It cannot be read.
    """
    try:
        text = typer.get_text_stream("stdin").read() if str(path) == "-" else path.read_text()
    except (OSError, ValueError) as exc:
        reason = getattr(exc, "strerror", None) or "it is no text"
        raise ConfigurationError(f"{str(path)!r} cannot be read: {reason}") from None
    return text.strip().removeprefix("Bearer ")


def _time_given(option: str, text: str) -> datetime:
    try:
        if text.replace(".", "", 1).isdigit():
            return datetime.fromtimestamp(float(text), UTC)
        found = datetime.fromisoformat(text)
        return found if found.tzinfo is not None else found.astimezone()
    except (ValueError, OverflowError, OSError):
        raise ConfigurationError(
            f"{option} is {text[:40]!r}; give a time such as 2026-01-31T12:00:00Z, or "
            "seconds since 1970"
        ) from None
