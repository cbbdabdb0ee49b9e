"""Tests that credentials are asked for anew, and that a source that fails says so safely."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from streamq.driver import BackendUnavailableError, ConfigurationError, CredentialSource

NAMES = frozenset({"username", "password"})
ANSWERS: list[dict[str, str]] = []


def answer() -> dict[str, str]:
    """Return the next answer: the target of ``module:function`` below."""
    return ANSWERS.pop(0)


async def test_each_form_of_a_call_is_asked_each_time() -> None:
    async def from_a_coroutine() -> dict[str, str]:
        return answer()

    for call in (
        answer,
        from_a_coroutine,
        functools.partial(from_a_coroutine),
        f"{__name__}:answer",
    ):
        ANSWERS[:] = [{"password": "old"}, {"password": "new"}]
        source = CredentialSource("STREAMQ_X_", NAMES, call=call, fixed={"username": "ada"})
        assert source.is_dynamic
        assert await source.get() == {"username": "ada", "password": "old"}
        assert await source.get() == {"username": "ada", "password": "new"}


async def test_file_is_read_each_time_and_may_be_missing_while_it_is_replaced(
    tmp_path: Path,
) -> None:
    path = tmp_path / "password"
    source = CredentialSource("STREAMQ_X_", NAMES, files={"password": path})
    with pytest.raises(ConfigurationError, match="STREAMQ_X_PASSWORD_FILE: cannot read"):
        await source.get()
    with pytest.raises(ConfigurationError, match=r"password' \(No such file or directory\)"):
        await source.get()  # nothing of the reason is masked as if it were the password
    path.write_text(" old \n")
    assert await source.get() == {"password": " old "}
    path.unlink()
    with pytest.raises(BackendUnavailableError, match="cannot read"):
        await source.get()
    path.write_text("")
    with pytest.raises(BackendUnavailableError, match="is empty"):
        await source.get()
    path.write_text("new")
    assert await source.get() == {"password": "new"}


async def test_source_that_fails_is_refused_at_first_and_retried_later() -> None:
    def fails() -> dict[str, str]:
        if len(ANSWERS) == 1:
            return ANSWERS.pop()
        raise OSError("no vault at redis://ada:geheim@vault:1")

    ANSWERS[:] = []
    source = CredentialSource("STREAMQ_X_", NAMES, call=fails)
    with pytest.raises(ConfigurationError, match=r"OSError: no vault at redis://\*\*\*@vault:1"):
        await source.get()
    ANSWERS[:] = [{"password": "it works"}]
    assert await source.get() == {"password": "it works"}
    with pytest.raises(BackendUnavailableError) as caught:
        await source.get()
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("no_such_module:f", "neither an entry point"),
        (f"{__name__}:absent", "neither an entry point"),
        (f"{__name__}:NAMES", "is not callable"),
        (lambda: "geheim", "it returned str"),
        (lambda: {"password": b"geheim"}, "has to return a mapping"),
        (lambda: {"passwort": "geheim"}, "returned 'passwort'; this driver takes password, user"),
    ],
)
async def test_what_is_no_source_is_refused_without_its_answer(call: object, message: str) -> None:
    source = CredentialSource("STREAMQ_X_", NAMES, call=call)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=message) as caught:
        await source.get()
    assert "geheim" not in str(caught.value)


def test_fixed_credentials_are_not_asked_again() -> None:
    assert not CredentialSource("STREAMQ_X_", NAMES, fixed={"password": "x"}).is_dynamic
