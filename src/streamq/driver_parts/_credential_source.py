"""Asks for credentials each time that a connection is made, so that rotated ones are used.

Design: docs/design/configuration.md.
"""

from __future__ import annotations

import importlib.metadata
import inspect
import pkgutil
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

from streamq._errors import BackendUnavailableError, ConfigurationError, error_text

from ._credentials import mask_credentials
from ._named_code import importing_named_code
from ._one_thread import OneThread

GROUP = "streamq.credentials"
"""Entry points that return credentials; each one is a :data:`CredentialCall`."""

CredentialCall = Callable[[], Mapping[str, str] | Awaitable[Mapping[str, str]]]
"""Returns credentials by name, such as ``{"username": ..., "password": ...}``."""


class CredentialSource:
    """Returns the credentials that are valid now: fixed ones, then files, then a call's.

    Args:
        prefix: Prefix of the driver's settings, such as ``STREAMQ_REDIS_``, for messages.
        names: Names of the credentials that the driver understands, such as ``password``.
        call: The setting ``credentials``: a callable, the name of an entry point in the group
            ``streamq.credentials``, or ``module:function``. A callable that is no coroutine
            function runs in a thread, and may block; whoever asks meanwhile gets its answer, too.
        files: Files that contain one credential each, by its name. A line break at the end is not
            part of it.
        fixed: Credentials that do not change, by name.
        required: Names of credentials without which nobody can log in.
    """

    def __init__(
        self,
        prefix: str,
        names: frozenset[str],
        *,
        call: str | CredentialCall | None = None,
        files: Mapping[str, Path] | None = None,
        fixed: Mapping[str, str] | None = None,
        required: Iterable[str] = (),
    ) -> None:
        self._prefix = prefix
        self._names = names
        self._given = call
        self._call: CredentialCall | None = None
        self._files = dict(files or {})
        self._fixed = dict(fixed or {})
        self._required = tuple(required)
        self._has_answered = False
        self._thread = OneThread()

    @property
    def is_dynamic(self) -> bool:
        """Whether the next answer may differ, so that a refused connection is worth another try."""
        return self._given is not None or bool(self._files)

    async def get(self) -> dict[str, str]:
        """Return the credentials that are valid now.

        Cancellation leaves nothing behind but a thread that ends with the user's callable.

        Raises:
            ConfigurationError: The source cannot be loaded, or returns something else than
                credentials; also if the first call of it fails, or a file cannot be read.
            BackendUnavailableError: A source that has answered before fails now; it is retried.
        """
        found = dict(self._fixed)
        for name, path in self._files.items():
            found[name] = await self._thread.call(partial(self._read, name, path), name)
        if self._given is not None:
            found.update(await self._ask())
        if missing := [name for name in self._required if not found.get(name)]:
            raise ConfigurationError(f"{self._prefix}CREDENTIALS returned no {missing[0]}")
        self._has_answered = True
        return found

    def _read(self, name: str, path: Path) -> str:
        setting = f"{self._prefix}{name.upper()}_FILE"
        try:
            text = path.read_text("utf-8").rstrip("\r\n")
        except (OSError, ValueError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8"
            raise self._failure(f"{setting}: cannot read {str(path)!r} ({reason})") from None
        if not text:
            raise self._failure(f"{setting}: {str(path)!r} is empty")
        return text

    async def _ask(self) -> Mapping[str, str]:
        call = self._call = self._call or self._load()
        label = f"{self._prefix}CREDENTIALS"
        try:
            blocks = not inspect.iscoroutinefunction(call)
            answer = await self._thread.call(call) if blocks else await call()  # type: ignore[misc]
        except Exception as exc:
            text = mask_credentials(error_text(exc))
            raise self._failure(f"{label}: {type(exc).__name__}: {text}") from exc
        if not isinstance(answer, Mapping) or not all(
            isinstance(each, str) for pair in answer.items() for each in pair
        ):
            raise ConfigurationError(
                f"{label} has to return a mapping from names to texts, such as "
                f"{self._example()}; it returned {type(answer).__name__}"
            )
        if unknown := sorted(answer.keys() - self._names):
            raise ConfigurationError(
                f"{label} returned {unknown[0]!r}; this driver takes "
                f"{', '.join(sorted(self._names))}"
            )
        return answer

    def _load(self) -> CredentialCall:
        given, label = self._given, f"{self._prefix}CREDENTIALS"
        if callable(given):
            return given
        name = str(given)
        points = importlib.metadata.entry_points(group=GROUP, name=name)
        try:
            with importing_named_code():
                call = next(iter(points)).load() if points else pkgutil.resolve_name(name)
        except (ImportError, AttributeError, ValueError) as exc:
            raise ConfigurationError(
                f"{label}={name!r} is neither an entry point in group {GROUP!r} nor an importable "
                f"module:function: {error_text(exc)}"
            ) from exc
        if not callable(call):
            raise ConfigurationError(f"{label}={name!r} is not callable: {type(call).__name__}")
        return call  # type: ignore[no-any-return]

    def _failure(self, message: str) -> ConfigurationError | BackendUnavailableError:
        return (BackendUnavailableError if self._has_answered else ConfigurationError)(message)

    def _example(self) -> str:
        return "{" + ", ".join(f'"{name}": "..."' for name in sorted(self._names)) + "}"
