"""Tests that credentials are asked for anew, and that a source that fails says so safely."""

from __future__ import annotations

import asyncio
import functools
import threading
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


async def test_function_that_hangs_takes_one_thread() -> None:
    """A secret store that is down must not take every thread of the process, try by try."""
    begun, release = threading.Semaphore(0), threading.Event()
    answers = iter(("late", "next"))

    def ask() -> dict[str, str]:
        begun.release()
        assert release.wait(30)
        return {"password": next(answers)}

    source = CredentialSource("STREAMQ_X_", NAMES, call=ask)
    for _ in range(5):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await source.get()
    waiting = [asyncio.ensure_future(source.get()) for _ in range(3)]
    await asyncio.sleep(0)
    release.set()
    assert await asyncio.gather(*waiting) == [{"password": "late"}] * 3
    assert begun.acquire()
    assert not begun.acquire(blocking=False)
    assert await source.get() == {"password": "next"}


async def test_function_that_returns_an_awaitable_may_be_asked_by_many_at_once() -> None:
    """Such as a callable object of a library: each answer can be awaited once."""

    class Store:
        async def __call__(self) -> dict[str, str]:
            return {"password": "x"}

    source = CredentialSource("STREAMQ_X_", NAMES, call=Store())
    assert await asyncio.gather(*(source.get() for _ in range(5))) == [{"password": "x"}] * 5


@pytest.mark.parametrize("given", [{"username": "ada"}, {"username": "ada", "password": ""}])
async def test_credentials_that_are_needed_are_named_where_they_are_missing(
    given: dict[str, str],
) -> None:
    """Otherwise the mistake in a function looks like a wrong password, or like a failure."""
    source = CredentialSource("STREAMQ_X_", NAMES, call=lambda: given, required=["password"])
    with pytest.raises(ConfigurationError, match="STREAMQ_X_CREDENTIALS returned no password"):
        await source.get()
