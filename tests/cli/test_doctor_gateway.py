"""``streamq doctor gateway``: what is exposed, and whether tokens work."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import OctKey, RSAKey

from .command import Cli, Inside, get, read_until

_KEY = "s3cretive-and-l0ng-enough-for-HS256-to-take-it"
_BASE = {"STREAMQ_BACKEND": "sqlite"}


def findings(
    inside: Inside, *arguments: str, env: Mapping[str, str] = _BASE
) -> tuple[int, list[dict[str, Any]]]:
    """Return the exit code and what was found."""
    done = inside.run("doctor", "gateway", "--json", *arguments, env={**_BASE, **env})
    assert done.code in (0, 1), done.err
    return done.code, json.loads(done.out)["findings"]


def about(found: list[dict[str, Any]], subject: str) -> dict[str, Any]:
    [one] = [each for each in found if each["subject"] == subject]
    return one


def test_a_gateway_for_oneself_is_fine(inside: Inside) -> None:
    """The default, on which nobody should be warned."""
    code, found = findings(inside)
    assert code == 0
    assert not any(each["is_warning"] for each in found)
    assert "this machine" in about(found, "who reaches it")["detail"]


@pytest.mark.parametrize(
    ("variables", "subject", "is_wrong"),
    [
        ({"STREAMQ_GATEWAY_HOST": "8.8.8.8"}, "who reaches it", True),
        ({"STREAMQ_GATEWAY_HOST": "10.1.2.3"}, "who reaches it", False),
        ({"STREAMQ_GATEWAY_HOST": "10.1.2.3", "STREAMQ_TOKEN_KEY": _KEY}, "encryption", False),
        ({"STREAMQ_GATEWAY_ORIGINS": "*"}, "other sites (CORS)", True),
        ({"STREAMQ_GATEWAY_ORIGINS": "null"}, "other sites (CORS)", True),
        ({"STREAMQ_GATEWAY_ORIGINS": "http://a.example"}, "other sites (CORS)", False),
        (
            {"STREAMQ_GATEWAY_ORIGINS": "*", "STREAMQ_TOKEN_KEY": _KEY},
            "other sites (CORS)",
            False,
        ),
        ({"STREAMQ_GATEWAY_HOSTS": "*"}, "names", True),
        ({"STREAMQ_TOKEN_KEY": "a" * 40}, "keys", True),
        (
            {"STREAMQ_TOKEN_KEY": _KEY, "STREAMQ_GATEWAY_TICKET_KEY": _KEY},
            "keys",
            True,
        ),
        ({"STREAMQ_TOKEN_KEY": "short"}, "settings", True),
        (
            {
                "STREAMQ_GATEWAY_HOST": "10.1.2.3",
                "STREAMQ_TOKEN_KEY": _KEY,
                "STREAMQ_GATEWAY_ANONYMOUS": "read,delete",
            },
            "without a token",
            True,
        ),
        (
            {"STREAMQ_GATEWAY_HOST": "0.0.0.0", "STREAMQ_GATEWAY_ANONYMOUS": "read,list,delete"},
            "without a token",
            True,
        ),
        (
            {"STREAMQ_GATEWAY_HOST": "0.0.0.0", "STREAMQ_GATEWAY_ANONYMOUS": "cancel"},
            "without a token",
            True,
        ),
        (
            {"STREAMQ_GATEWAY_HOST": "10.1.2.3", "STREAMQ_GATEWAY_TRUST_TENANTS": "true"},
            "tenants",
            False,
        ),
        ({"STREAMQ_GATEWAY_CANCEL_TENANTS": "a,b"}, "who may stop workflows", False),
        ({"STREAMQ_BACKEND": "memory"}, "backend", False),
        ({"STREAMQ_GATEWAY_TRUSTED_PROXIES": "10.1.2.3, 0.0.0.0/0"}, "proxies", False),
        ({"STREAMQ_GATEWAY_TRUSTED_PROXIES": "::/0"}, "proxies", False),
    ],
)
def test_what_is_exposed_by_a_setting_is_found(
    inside: Inside, variables: dict[str, str], subject: str, is_wrong: bool
) -> None:
    """Each of these looks harmless where it is set."""
    code, found = findings(inside, env=variables)
    one = about(found, subject)
    assert one["ok"] is not is_wrong
    assert one["is_warning"] or is_wrong
    assert one["remedy"]
    assert code == (0 if all(each["ok"] for each in found) else 1)
    assert _KEY not in json.dumps(found)


@pytest.mark.parametrize(
    ("variables", "permitted"),
    [
        ({}, "read, list every stream of tenant default"),
        ({"STREAMQ_GATEWAY_ANONYMOUS": "describe"}, "to describe every stream"),
        ({"STREAMQ_GATEWAY_ANONYMOUS": "read, cancel"}, "to read, cancel every stream"),
        ({"STREAMQ_GATEWAY_ANONYMOUS": "list", "STREAMQ_TOKEN_KEY": _KEY}, "to list every stream"),
        ({"STREAMQ_TOKEN_KEY": _KEY}, "the networks of this machine, with a token"),
        ({"STREAMQ_GATEWAY_ANONYMOUS": ","}, "and nobody may do anything"),
    ],
)
def test_what_everybody_may_do_is_said_as_it_is(
    inside: Inside, variables: dict[str, str], permitted: str
) -> None:
    """Nobody may stop or delete anything unless a setting says so."""
    address = {"STREAMQ_GATEWAY_HOST": "10.1.2.3"}
    _, found = findings(inside, env={**address, **variables})
    assert permitted in about(found, "who reaches it")["detail"]
    trusting = {"STREAMQ_GATEWAY_TRUST_TENANTS": "true"}
    if "STREAMQ_TOKEN_KEY" not in variables and "every" in permitted:
        _, found = findings(inside, env={**address, **variables, **trusting})
        expected = permitted.removeprefix("to ").partition(" every")[0]
        assert f"may {expected} the streams of every tenant" in about(found, "tenants")["detail"]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1"])
def test_this_machine_alone_needs_no_encryption(inside: Inside, host: str) -> None:
    """Also by its name: one finding must not say what the next one denies."""
    variables = {"STREAMQ_GATEWAY_HOST": host, "STREAMQ_GATEWAY_ANONYMOUS": "read,delete"}
    variables["STREAMQ_GATEWAY_ORIGINS"] = "http://[::1]:3000,http://a.localhost:3000"
    code, found = findings(inside, env=variables)
    assert code == 0
    assert "this machine only" in about(found, "who reaches it")["detail"]
    assert not any(each["is_warning"] for each in found)


def test_a_file_that_others_can_change_is_found(inside: Inside, tmp_path: Path) -> None:
    """Whoever puts a key of their own there makes tokens, also where the key is a public one."""
    assert inside.run("token", "key", "our.key").code == 0
    public, key, issuers = (tmp_path / name for name in ("our.key.pub", "our.key", "issuers.toml"))
    issuers.write_text(
        '[[issuer]]\nissuer = "i"\naudience = "a"\nkey_file = "our.key"\n'
        'algorithms = ["Ed25519"]\ntenant = "acme"\n'
    )
    issuers.chmod(0o644)
    variables = {
        "STREAMQ_TOKEN_KEY_FILE": str(public),
        "STREAMQ_TOKEN_ISSUERS": str(issuers),
    }
    for path, right, wrong in (
        (public, 0o644, 0o666),
        (public, 0o644, 0o664),
        (issuers, 0o644, 0o622),
        (key, 0o600, 0o644),
        (key, 0o600, 0o620),
    ):
        assert findings(inside, env=variables)[0] == 0
        path.chmod(wrong)
        code, found = findings(inside, env=variables)
        [one] = [each for each in found if not each["ok"]]
        assert (code, one["subject"]) == (1, "keys")
        assert one["remedy"].startswith("chmod")
        assert one["remedy"].endswith(str(path))
        path.chmod(right)


def test_a_key_that_others_can_read_is_found(inside: Inside, tmp_path: Path) -> None:
    """Whoever reads it makes tokens; the public half would do for the gateway."""
    assert inside.run("token", "key", "our.key").code == 0
    key = tmp_path / "our.key"
    variables = {"STREAMQ_TOKEN_KEY_FILE": str(key)}
    code, found = findings(inside, env=variables)
    assert code == 0
    assert about(found, "keys")["remedy"].endswith("our.key.pub")
    key.chmod(0o644)
    code, found = findings(inside, env=variables)
    assert code == 1
    assert any("chmod 600" in each["remedy"] for each in found)
    _, found = findings(inside, env={"STREAMQ_TOKEN_KEY_FILE": f"{key}.pub"})
    assert about(found, "keys")["ok"]
    assert not about(found, "keys")["is_warning"]


def test_a_running_gateway_is_asked(cli: Cli) -> None:
    """As a stranger: settings say nothing about the proxy in front."""
    environment = {**_BASE, "STREAMQ_TOKEN_KEY": _KEY}
    for variables, is_asked in ((environment, True), (_BASE, False)):
        serving = cli.start("serve", "--port", "0", env=variables)
        url = read_until(serving, "Ctrl-C stops it").split()[0]
        assert get(f"{url}/healthz").status == 200
        done = cli.run("doctor", "gateway", "--json", "--url", url, env=environment)
        found = json.loads(done.out)["findings"]
        assert about(found, "the gateway itself")["ok"]
        assert about(found, "clock of the gateway")["ok"]
        assert about(found, "a stranger at its address")["ok"] is is_asked
        assert done.code == (0 if is_asked else 1)
        serving.terminate()
        serving.wait(20)


def test_a_token_is_checked_with_its_revocation(inside: Inside, tmp_path: Path) -> None:
    """Why a client gets 401 is the commonest question."""
    variables = {**_BASE, "STREAMQ_TOKEN_KEY": _KEY}
    path = tmp_path / "token.txt"
    path.write_text(inside.run("token", "new", "--all", env=variables).out)
    given = ("--token-file", str(path))
    code, found = findings(inside, *given, env=variables)
    assert code == 0
    assert "tenant default" in about(found, "the token")["detail"]
    assert about(found, "revocation")["ok"]
    assert inside.run("token", "revoke", *given, env=variables).code == 0
    code, found = findings(inside, *given, env=variables)
    assert code == 1
    assert "has been revoked" in about(found, "revocation")["detail"]
    path.write_text(inside.run("token", "new", "--all", "--for", "2d", env=variables).out)
    _, found = findings(inside, *given, env=variables)
    assert about(found, "the token")["is_warning"]
    path.write_text("nonsense")
    code, found = findings(inside, *given, env=variables)
    assert not about(found, "the token")["ok"]
    code, found = findings(inside, *given)
    assert "no issuer" in about(found, "the token")["detail"]


class _Issuer(ThreadingHTTPServer):
    """Publishes keys, by a clock that may be wrong."""

    ahead = 0.0
    keys: list[dict[str, Any]]


class _Handler(BaseHTTPRequestHandler):
    server: _Issuer

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"keys": self.server.keys}).encode())

    def date_time_string(self, timestamp: float | None = None) -> str:
        return formatdate(time.time() + self.server.ahead, usegmt=True)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def issuer() -> Iterator[_Issuer]:
    server = _Issuer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_an_issuer_is_asked_for_its_keys_and_its_time(
    inside: Inside, tmp_path: Path, issuer: _Issuer
) -> None:
    """Its fresh tokens are refused where its clock is ahead, and nothing else says why."""
    good = RSAKey.generate_key(2048, {"kid": "1"}).as_dict(private=False)
    issuer.keys = [good]
    path = tmp_path / "issuers.toml"
    url = f"http://127.0.0.1:{issuer.server_port}/keys"
    path.write_text(
        f'[[issuer]]\nissuer = "i"\naudience = "a"\njwks_url = "{url}"\n'
        'algorithms = ["RS256"]\ntenant = "acme"\n'
    )
    variables = {"STREAMQ_TOKEN_ISSUERS": str(path)}
    code, found = findings(inside, env=variables)
    assert (code, about(found, "issuer i")["detail"]) == (0, "usable keys: 1")
    assert about(found, "clock of i")["ok"]
    issuer.ahead = 60.0
    code, found = findings(inside, env=variables)
    assert code == 1
    assert "ahead of" in about(found, "clock of i")["detail"]
    issuer.ahead = 0.0
    issuer.keys = [good, OctKey.generate_key(256).as_dict(private=True)]
    _, found = findings(inside, env=variables)
    assert about(found, "issuer i")["is_warning"]
    issuer.keys = []
    code, found = findings(inside, env=variables)
    assert (code, about(found, "issuer i")["ok"]) == (1, False)


def test_options_belong_together(inside: Inside) -> None:
    """One that is ignored would look like a check that was made."""
    assert inside.run("doctor", "gateway", "--create").code == 2
    assert inside.run("doctor", "--url", "http://localhost").code == 2
    assert inside.run("doctor", "something").code == 2
