"""``streamq token``: makes keys and tokens for the gateway, and explains a token."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from streamq._comma_lists import listed
from streamq._errors import ConfigurationError
from streamq._settings import load_settings

from ._durations import duration
from ._terminal import Table, needs_extra, show_json, show_notice, show_table, stdout

_MOMENTS = ("exp", "iat", "nbf")

token = typer.Typer(name="token")


@token.callback(invoke_without_command=True)
def _token(context: typer.Context) -> None:
    """Make keys and tokens for the gateway, and explain a token."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@token.command()
def key(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write the key.")],
    kind: Annotated[
        Literal["ed25519", "secret"],
        typer.Option(
            help="`ed25519` is a pair: gateways need only its public half (FILE.pub). `secret` is "
            "one text for both sides."
        ),
    ] = "ed25519",
) -> None:
    """Make a key to sign tokens, cards or notifications with, or a secret.

    \b
    Examples:
      streamq token key streamq-token.key
      export STREAMQ_TOKEN_KEY_FILE=streamq-token.key       where tokens are made
      export STREAMQ_TOKEN_KEY_FILE=streamq-token.key.pub   where the gateway runs
      streamq token key --kind secret ticket.key
      export STREAMQ_GATEWAY_TICKET_KEY="$(cat ticket.key)"       tickets, where the gateway runs
      streamq token key card.key
      export STREAMQ_A2A_SIGNING_KEY_FILE=card.key   cards, where an A2A server runs
    """
    with needs_extra("gateway"):
        from streamq.access import new_ed25519_key, new_secret
    public = path.with_name(path.name + ".pub")
    if kind == "secret":
        _write_new(path, new_secret(), 0o600)
        show_notice(
            f"{path}: a secret, for one thing only: STREAMQ_TOKEN_KEY_FILE names the file, where "
            "tokens are made and for the gateway; or STREAMQ_GATEWAY_TICKET_KEY, "
            "STREAMQ_A2A_PUSH_KEY or STREAMQ_A2A_PUSH_SECRET has its text"
        )
        return
    if public.exists():
        raise _exists(public)
    private_pem, public_pem = new_ed25519_key()
    _write_new(path, private_pem, 0o600)
    _write_new(public, public_pem, 0o644)
    show_notice(f"{path}: signs, tokens for example; keep it where that is done")
    show_notice(f"{public}: verifies; for tokens give it to the gateway as STREAMQ_TOKEN_KEY_FILE")


@token.command()
def new(
    stream: Annotated[str | None, typer.Option(help="One stream, by its name.")] = None,
    workflow: Annotated[
        str | None, typer.Option(help="All streams of the workflow with this id.")
    ] = None,
    prefix: Annotated[
        str | None,
        typer.Option(help="The stream of this name, and all names below it: `chat-7/...`."),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All streams of the tenant.")] = False,
    action: Annotated[
        list[str] | None,
        typer.Option(
            help="What it permits: read, describe, list, cancel, delete, admin, and write for A2A "
            "agents; separated by commas, or repeated.",
            show_default="read, cancel",
        ),
    ] = None,
    subject: Annotated[str, typer.Option(help="Who gets it.")] = "anonymous",
    tenant: Annotated[
        str | None, typer.Option(help="Tenant of the streams.", show_default="STREAMQ_TENANT")
    ] = None,
    lifetime: Annotated[
        timedelta | None,
        typer.Option(
            "--for", parser=duration, metavar="DURATION", help="Valid for.", show_default="15m"
        ),
    ] = None,
) -> None:
    """Make a token, and print it.

    \b
    Examples:
      streamq token new --workflow chat-7 --subject ada
      streamq token new --all --action read,list --for 8h
      curl -H "Authorization: Bearer $(streamq token new --stream a)" http://127.0.0.1:8330/events/a
    """
    with needs_extra("gateway"):
        from streamq.access import DEFAULT_LIFETIME, mint_token
    named = [each for each in (stream, workflow, prefix) if each is not None]
    if len(named) + every != 1:
        raise ConfigurationError("give one of --stream, --workflow, --prefix and --all")
    typer.echo(
        mint_token(
            stream=stream,
            workflow=workflow,
            prefix=prefix,
            every=every,
            actions=_actions(action or ["read,cancel"]),
            subject=subject,
            tenant=tenant,
            lifetime=DEFAULT_LIFETIME if lifetime is None else lifetime,
        )
    )


@token.command()
def show(
    text: Annotated[
        str, typer.Argument(metavar="TOKEN", help="The token; - reads it from standard input.")
    ] = "-",
    as_json: Annotated[bool, typer.Option("--json", help="Print the same facts as JSON.")] = False,
) -> None:
    """Verify a token as the gateway would, save whether it was revoked; show what it permits.

    This asks no backend. Whether it was revoked says `streamq doctor gateway --token-file FILE`.

    Of one that is refused although its signature is good, the claims are shown, too.

    \b
    Examples:
      streamq token new --all | streamq token show
      streamq token show --json < token.txt
    """
    with needs_extra("gateway"):
        from streamq.access import InvalidTokenError, Rights, TokenVerifier, configured_issuers
    issuers = configured_issuers(load_settings())
    if not issuers:
        raise ConfigurationError(
            "no issuer is configured, so every token is refused: set STREAMQ_TOKEN_KEY_FILE, "
            "STREAMQ_TOKEN_KEY or STREAMQ_TOKEN_ISSUERS"
        )
    given = sys.stdin.read() if text == "-" else text

    async def verified() -> Rights:
        verifier = TokenVerifier(issuers)
        try:
            return await verifier.verify(given.strip().removeprefix("Bearer "))
        finally:
            await verifier.aclose()

    try:
        rights = asyncio.run(verified())
    except InvalidTokenError as exc:
        if exc.claims is not None:
            _show_claims(exc.claims, as_json=as_json)
        raise
    show_notice(
        "whether it was revoked was not looked at: `streamq doctor gateway --token-file FILE` does"
    )
    expires = datetime.fromtimestamp(rights.expires_at or 0, UTC).isoformat(timespec="seconds")
    permissions = [
        {
            "actions": sorted(each.actions),
            "match_type": each.streams.match_type,
            "match": each.streams.match,
        }
        for each in rights.permissions
    ]
    facts = {
        "issuer": rights.issuer,
        "tenant": rights.tenant,
        "subject": rights.subject,
        "token_id": rights.token_id,
        "expires": expires,
    }
    if as_json:
        show_json({**facts, "permissions": permissions})
        return
    table = Table("permits", "on streams", "named")
    for each in rights.permissions:
        table.add_row(
            ", ".join(sorted(each.actions)), each.streams.match_type, each.streams.match or "(all)"
        )
    about = Table("token", "value")
    for name, value in facts.items():
        about.add_row(name, str(value))
    show_table(about, stdout())
    show_table(table, stdout())


def _show_claims(claims: Mapping[str, Any], *, as_json: bool) -> None:
    """Show what a token states that is refused."""
    if as_json:
        show_json({"is_refused": True, "claims": dict(claims)})
        return
    table = Table("claim", "value")
    for name, value in claims.items():
        shown = json.dumps(value) if isinstance(value, list | dict) else str(value)
        if name in _MOMENTS:
            with contextlib.suppress(TypeError, ValueError, OverflowError, OSError):
                shown = datetime.fromtimestamp(value, UTC).isoformat(timespec="seconds")
        table.add_row(name, shown)
    show_table(table, stdout())


def _actions(given: list[str]) -> list[str]:
    """Return the actions of options, each of which may list several."""
    return [each for text in given for each in listed(text.lower())]


def _write_new(path: Path, text: str, mode: int) -> None:
    """Write a file that does not exist yet: a key that is replaced ends all tokens at once."""
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
            file.write(text)
    except FileExistsError:
        raise _exists(path) from None
    except OSError as exc:
        raise ConfigurationError(f"{str(path)!r} cannot be written: {exc.strerror}") from None


def _exists(path: Path) -> ConfigurationError:
    return ConfigurationError(
        f"{str(path)!r} exists; its tokens would end at once. Name another file"
    )
