"""``streamq token``: keys and tokens for development and for small set-ups."""

from __future__ import annotations

import json
import stat
from datetime import timedelta
from pathlib import Path

import pytest

from streamq import load_settings
from streamq.access import Action, mint_token

from .command import DATABASE, Inside


def test_a_key_a_token_and_what_it_permits(inside: Inside, tmp_path: Path) -> None:
    """Three commands from nothing to a token that the gateway takes."""
    assert inside.run("token", "key", "our.key").code == 0
    key, public = tmp_path / "our.key", tmp_path / "our.key.pub"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    made = inside.run(
        "token", "new", "--workflow", "chat-7", "--subject", "ada", "--for", "1h",
        env={"STREAMQ_TOKEN_KEY_FILE": str(key)},
    )  # fmt: skip
    assert made.out.count(".") == 2
    shown = inside.run(
        "token", "show", "--json", made.out.strip(), env={"STREAMQ_TOKEN_KEY_FILE": str(public)}
    )
    facts = json.loads(shown.out)
    assert (facts["subject"], facts["tenant"]) == ("ada", "default")
    assert facts["permissions"] == [
        {"actions": ["cancel", "read"], "match_type": "workflow", "match": "chat-7"}
    ]
    table = inside.run(
        "token", "show", made.out.strip(), env={"STREAMQ_TOKEN_KEY_FILE": str(public)}
    )
    assert "chat-7" in table.out
    assert "cancel, read" in table.out
    for each in (shown, table):
        assert "doctor gateway --token-file" in each.err


def test_actions_are_listed_or_repeated(inside: Inside) -> None:
    """As in the settings, where commas separate them."""
    variables = {"STREAMQ_TOKEN_KEY": "s" * 40}
    for given in (["--action", "read, list"], ["--action", "read", "--action", "LIST"]):
        made = inside.run("token", "new", "--all", *given, env=variables)
        shown = inside.run("token", "show", "--json", made.out.strip(), env=variables)
        [permission] = json.loads(shown.out)["permissions"]
        assert permission["actions"] == ["list", "read"]


def test_the_help_names_every_action(inside: Inside) -> None:
    """What may be given can be read where it is asked for."""
    shown = inside.run("token", "new", "--help").out
    assert [action for action in Action if f" {action}" not in shown] == []


def test_a_key_is_not_overwritten(inside: Inside, tmp_path: Path) -> None:
    """All tokens of the old one would end at once."""
    (tmp_path / "our.key").write_text("precious")
    failed = inside.run("token", "key", "our.key")
    assert failed.code == 2
    assert "exists" in failed.err
    assert (tmp_path / "our.key").read_text() == "precious"
    (tmp_path / "other.key.pub").write_text("precious")
    assert "exists" in inside.run("token", "key", "other.key").err
    assert not (tmp_path / "other.key").exists()


@pytest.mark.parametrize(
    ("arguments", "variables", "why"),
    [
        (["new", "--all"], {}, "streamq token key"),
        (["new"], {"STREAMQ_TOKEN_KEY": "s" * 40}, "one of --stream"),
        (["new", "--all", "--stream", "a"], {"STREAMQ_TOKEN_KEY": "s" * 40}, "one of --stream"),
        (["new", "--all", "--action", "x"], {"STREAMQ_TOKEN_KEY": "s" * 40}, "'x'"),
        (["new", "--all", "--action", "read,x"], {"STREAMQ_TOKEN_KEY": "s" * 40}, "read, describe"),
        (["new", "--all", "--action", "raed"], {"STREAMQ_TOKEN_KEY": "s" * 40}, "'raed'"),
        (["new", "--all", "--action", ","], {"STREAMQ_TOKEN_KEY": "s" * 40}, "action"),
        (["new", "--all", "--tenant", ""], {"STREAMQ_TOKEN_KEY": "s" * 40}, "tenant"),
        (["new", "--all", "--for", "99999999d"], {"STREAMQ_TOKEN_KEY": "s" * 40}, "lifetime"),
        (["new", "--all", "--for", "0s"], {"STREAMQ_TOKEN_KEY": "s" * 40}, "positive"),
        (["new", "--all", "--tenant", "a/b"], {"STREAMQ_TOKEN_KEY": "s" * 40}, "a/b"),
        (["new", "--all"], {"STREAMQ_TOKEN_KEY": "short-and-secret"}, "32 bytes"),
        (["show", "a.b.c"], {}, "no issuer"),
        (["show", "a.b.c"], {"STREAMQ_TOKEN_KEY": "s" * 40}, "malformed"),
        (["key", "nowhere/key"], {}, "cannot be written"),
    ],
)
def test_what_is_wrong_is_named(
    arguments: list[str], variables: dict[str, str], why: str, inside: Inside
) -> None:
    """One line, exit code 2, and never the key."""
    failed = inside.run("token", *arguments, env=variables)
    assert failed.code == 2
    assert why in failed.err
    assert "Traceback" not in failed.err
    assert "short-and-secret" not in failed.err


def test_a_token_is_revoked(inside: Inside, tmp_path: Path) -> None:
    """By itself, by its id, or with all others of its subject."""
    variables = {"STREAMQ_TOKEN_KEY": "s" * 40, "STREAMQ_BACKEND": "sqlite"}
    _begin_database(tmp_path)
    made = inside.run("token", "new", "--all", env=variables)
    (tmp_path / "token.txt").write_text(f"Bearer {made.out}")
    for arguments in (
        ["--token-file", "token.txt"],
        ["--jti", "x", "--expires", "2999-01-31T12:00:00Z"],
        ["--subject", "ada"],
        ["--subject", "ada", "--before", "1700000000"],
    ):
        done = inside.run("token", "revoke", *arguments, env=variables)
        assert (done.code, done.out) == (0, ""), done.err
        assert "within 2 s" in done.err
        assert f"backend sqlite, file {tmp_path / DATABASE}" in done.err
        assert "tenant default, issuer streamq" in done.err
        assert arguments[0] != "--subject" or "subject ada" in done.err
    tenant = inside.run("token", "revoke", "--subject", "ada", "--tenant", "acme", env=variables)
    assert "tenant acme" in tenant.err
    stranger = {"STREAMQ_BACKEND": "sqlite"}  # no issuer is configured, and one is named
    named = inside.run(
        "token", "revoke", "--subject", "ada", "--issuer", "https://x.example/", env=stranger
    )
    assert (named.code, "issuer https://x.example/" in named.err) == (0, True)
    nobodys = inside.run("token", "revoke", "--subject", "ada", env=stranger)
    assert (nobodys.code, "no issuer is configured" in nobodys.err) == (2, True)
    from_stdin = inside.run("token", "revoke", "--token-file", "-", env=variables)
    assert from_stdin.code == 2


def test_nothing_is_revoked_where_no_gateway_reads(inside: Inside, tmp_path: Path) -> None:
    """In another directory the file is another one: an answer of success would be a lie."""
    variables = {"STREAMQ_TOKEN_KEY": "s" * 40, "STREAMQ_BACKEND": "sqlite"}
    for path in (DATABASE, Path("nowhere/x.db")):
        variables["STREAMQ_SQLITE_PATH"] = str(path)
        failed = inside.run("token", "revoke", "--subject", "ada", env=variables)
        assert (failed.code, failed.out) == (2, "")
        assert f"file {tmp_path / path} of backend sqlite does not exist" in failed.err
        assert not (tmp_path / path.parent).exists()


def test_a_refused_token_is_explained(inside: Inside) -> None:
    """What it states is shown only if its issuer has signed it."""
    key, other = "s" * 40, "t" * 40
    settings = load_settings(token_key=key, backend="memory")
    stale = mint_token(
        every=True, subject="ada", lifetime=timedelta(microseconds=1), settings=settings
    )
    failed = inside.run("token", "show", stale, env={"STREAMQ_TOKEN_KEY": key})
    assert (failed.code, "expired" in failed.err) == (2, True)
    assert "ada" in failed.out
    as_json = inside.run("token", "show", "--json", stale, env={"STREAMQ_TOKEN_KEY": key})
    assert json.loads(as_json.out)["claims"]["sub"] == "ada"
    forged = inside.run("token", "show", stale, env={"STREAMQ_TOKEN_KEY": other})
    assert (forged.code, forged.out) == (2, "")


def _begin_database(directory: Path) -> None:
    """Make the file of the backend, empty, as where a gateway has begun."""
    (directory / DATABASE).parent.mkdir()
    (directory / DATABASE).touch()


@pytest.mark.parametrize(
    ("arguments", "changed", "why"),
    [
        ([], {}, "one of --jti"),
        (["--jti", "x", "--subject", "y"], {}, "one of --jti"),
        (["--jti", "x", "--before", "1"], {}, "--before belongs"),
        (["--subject", "x", "--expires", "1"], {}, "--expires belongs"),
        (["--subject", "x", "--before", "soon"], {}, "2026-01-31T12:00:00Z"),
        (["--subject", "x", "--before", "0001-01-01"], {}, "2026-01-31T12:00:00Z"),
        (["--subject", "x", "--before", "1969-01-01"], {}, "1970"),
        (["--jti", "x", "--expires", "2020-01-31"], {}, "in the future"),
        (["--jti", ""], {}, "empty"),
        (["--jti", "x", "--issuer", "https://nobody"], {}, "'streamq'"),
        (["--jti", "x", "--tenant", "streamq.system"], {}, "tenant"),
        (["--token-file", "nothing.txt"], {}, "cannot be read"),
        (["--jti", "x"], {"STREAMQ_BACKEND": "memory"}, "POST /revocations"),
    ],
)
def test_what_cannot_be_revoked(
    inside: Inside, arguments: list[str], changed: dict[str, str], why: str
) -> None:
    """Nothing was revoked then, and the reason says what to give instead."""
    variables = {"STREAMQ_TOKEN_KEY": "s" * 40, "STREAMQ_BACKEND": "sqlite", **changed}
    _begin_database(inside.directory)
    failed = inside.run("token", "revoke", *arguments, env=variables)
    assert failed.code == 2
    assert why in failed.err
    assert "Traceback" not in failed.err
