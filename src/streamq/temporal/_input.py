"""Checks the input of activities and workflows that any SDK may call by name: plain JSON.

Design: docs/design/temporal-reading.md.
"""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

from temporalio.converter import value_to_type
from temporalio.exceptions import ApplicationError

from streamq._errors import ConfigurationError
from streamq._settings_base import did_you_mean

from ._failure import final_failure

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

D = TypeVar("D", bound="DataclassInstance")
V = TypeVar("V")


def takes(
    kind: type[D],
) -> Callable[[Callable[[D], Awaitable[V]]], Callable[[D], Awaitable[V]]]:
    """Let an activity read its one argument itself, below ``@activity.defn``.

    If the SDK converted the argument by its annotation, it would ignore unknown fields and retry
    for ever a value that it cannot convert. With this decorator the SDK passes plain data, and a
    mistake fails the activity without a retry.
    """

    def decorator(function: Callable[[D], Awaitable[V]]) -> Callable[[D], Awaitable[V]]:
        @functools.wraps(function)
        async def run(*args: Any) -> V:
            try:
                if len(args) != 1:
                    raise ConfigurationError(
                        f"there is one input, a {kind.__name__}, not {len(args)}"
                    )
                [data] = args
                request = data if isinstance(data, kind) else from_json(kind, data)
            except ConfigurationError as exc:
                raise invalid_request(str(exc)) from None
            return await function(request)

        hints = typing.get_type_hints(function)
        run.__annotations__ = dict.fromkeys(hints, Any) | {"return": hints["return"]}
        return run

    return decorator


def from_json(kind: type[D], data: object) -> D:
    """Convert plain data to a dataclass.

    Raises:
        ConfigurationError: The data is no object, or a field is unknown, missing or of another
            type.
    """
    if not isinstance(data, dict):
        raise ConfigurationError(f"{kind.__name__} must be a JSON object, not {data!r:.100}")
    fields = dataclasses.fields(kind)
    known = [known.name for known in fields]
    for name in data:
        if name not in known:
            raise ConfigurationError(f"unknown field {name!r}{did_you_mean(str(name), known)}")
    for field in fields:
        is_needed = (field.default, field.default_factory) == (dataclasses.MISSING,) * 2
        if is_needed and field.name not in data:
            raise ConfigurationError(f"field {field.name!r} of {kind.__name__} is missing")
    hints = typing.get_type_hints(kind)
    return kind(**{name: _value(kind, name, hints[name], given) for name, given in data.items()})


def _value(kind: type, name: str, hint: Any, given: object) -> Any:
    if typing.get_origin(hint) is typing.Literal:
        allowed = typing.get_args(hint)
        if given not in allowed:
            shown = ", ".join(repr(each) for each in allowed)
            meant = did_you_mean(given, allowed) if isinstance(given, str) else ""
            raise ConfigurationError(f"{name} must be one of {shown}, not {given!r:.100}{meant}")
    if name == "args" and not isinstance(given, list):  # a string would be accepted as a sequence
        raise ConfigurationError(f"args must be a list, not {given!r:.100}")
    try:
        found = value_to_type(hint, given)
    except (TypeError, ValueError, OverflowError) as exc:
        raise ConfigurationError(f"{name} cannot be {given!r:.100}: {exc}") from None
    # Numbers have been converted to the type of the field: 1.5 to 1, and true to 1.
    if isinstance(found, int | float) and (
        found != given or isinstance(found, bool) != isinstance(given, bool)
    ):
        raise ConfigurationError(f"{name} cannot be {given!r:.100}; see {kind.__name__}")
    return found


def invalid_request(message: str) -> ApplicationError:
    """Return the failure of a workflow or an activity whose input is invalid."""
    return final_failure(ConfigurationError, f"invalid request: {message}")
