"""``streamq doctor``."""

from __future__ import annotations

import json

from .command import DATABASE, Inside


def test_it_says_that_all_is_well(inside: Inside) -> None:
    """Whoever has just set things up wants to hear it before they write a program."""
    done = inside.run("doctor")
    assert done.code == 0
    assert any(line.startswith("ok") and "server" in line for line in done.out.splitlines())


def test_json_has_the_same_facts(inside: Inside) -> None:
    """A deployment asks before it starts its workers."""
    found = json.loads(inside.run("doctor", "--json").out)
    assert found["backend"] == "sqlite"
    assert found["created"] == []
    assert [(each["subject"], each["ok"]) for each in found["findings"]] == [("server", True)]


def test_a_stream_goes_through_and_leaves_nothing(inside: Inside) -> None:
    """Reading and writing are different permissions, and only trying tells."""
    done = inside.run("doctor", "--write", "--json")
    assert done.code == 0
    assert [each["ok"] for each in json.loads(done.out)["findings"]] == [True, True]
    assert inside.run("sweep", "--no-temporal", "--json").code == 0
    swept = json.loads(inside.run("sweep", "--no-temporal", "--json").out)
    assert swept["streams"] == 0
    assert (inside.directory / DATABASE).exists()


def test_what_is_wrong_is_told_with_the_next_step_and_an_exit_code(inside: Inside) -> None:
    """The server's address is what people get wrong most often, and a password is in it."""
    env = {"STREAMQ_BACKEND": "redis", "STREAMQ_REDIS_URL": "redis://u:hush@127.0.0.1:1/0"}
    done = inside.run("doctor", "--create", "--write", env=env)
    assert done.code == 1
    assert "127.0.0.1:1" in done.out
    assert "STREAMQ_REDIS_" in done.out
    assert "1 of 1" in done.err
    assert "hush" not in done.out + done.err


def test_a_mistyped_setting_is_an_error(inside: Inside) -> None:
    """A doctor that looks at the wrong server would be worse than none."""
    done = inside.run("doctor", env={"STREAMQ_SQLITE_PAHT": "x"})
    assert done.code == 2
    assert "STREAMQ_SQLITE_PATH" in done.err
