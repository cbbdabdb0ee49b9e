"""Reads from a function's signature how it streams: its kind, its writers, its chunks' type."""

from __future__ import annotations

import collections.abc
import enum
import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from streamq.records._values import alternatives
from streamq.temporal._names import DEFAULT_TOPIC
from streamq.writing._blocking import BlockingStreamWriter
from streamq.writing._policies import OnFull, OnRetry
from streamq.writing._writer import StreamWriter

from ._wrapping import layers_of, name_of

MAIN = "stream"
ATTRIBUTE = "__streamq__"

_GENERATORS = (
    collections.abc.AsyncIterator,
    collections.abc.AsyncGenerator,
    collections.abc.AsyncIterable,
    collections.abc.Iterator,
    collections.abc.Generator,
    collections.abc.Iterable,
)


class Kind(enum.Enum):
    """Kind of function of a streaming activity."""

    ASYNC = "async def"
    SYNC = "def"
    ASYNC_GENERATOR = "async generator"
    GENERATOR = "generator"

    @property
    def is_async(self) -> bool:
        """Whether it runs in the event loop, and not in a thread."""
        return self in (Kind.ASYNC, Kind.ASYNC_GENERATOR)

    @property
    def yields(self) -> bool:
        """Whether it yields its chunks instead of sending them."""
        return self in (Kind.ASYNC_GENERATOR, Kind.GENERATOR)


@dataclass(frozen=True, slots=True)
class StreamingSpec:
    """A streaming activity as declared.

    Attributes:
        kind: Kind of function.
        writers: Names of the parameters that are writers, in order of declaration.
        topic: Topic of the main stream, if the decorator has one.
        on_retry: What readers see of the next attempt.
        on_full: What a writer does while the backend is slow.
        chunk_type: Type of the main stream's chunks, if the annotations state it.
    """

    kind: Kind
    writers: tuple[str, ...]
    topic: str | None
    on_retry: OnRetry
    on_full: OnFull
    chunk_type: Any

    def topics(self, chosen: str | None) -> dict[str, str]:
        """Return the topic of every stream: the main one, and one for each further writer.

        Args:
            chosen: Topic that the workflow has chosen for the main stream.
        """
        main = chosen or self.topic or DEFAULT_TOPIC
        prefix = "" if main == DEFAULT_TOPIC else f"{main}."
        found = {MAIN: main} if MAIN in self.writers or self.kind.yields else {}
        return found | {name: prefix + name for name in self.writers if name != MAIN}


def spec_of(function: Any) -> StreamingSpec | None:
    """Return how a registered activity streams, ``None`` if it does not."""
    found = getattr(function, ATTRIBUTE, None)
    return found if isinstance(found, StreamingSpec) else None


def lacks_decorator(function: Any) -> bool:
    """Whether a registered activity has a parameter for a writer, and no decorator to pass it."""
    if spec_of(function) is not None or not hasattr(function, "__annotations__"):
        return False
    hints = annotations_of(function)
    writers = (StreamWriter, BlockingStreamWriter)
    return any(
        _is(hint, each) for name, hint in hints.items() if name != "return" for each in writers
    )


def kind_of(function: Callable[..., Any]) -> Kind:
    """Return the kind of a function: that of the outermost layer that is not a plain ``def``."""
    for each in layers_of(function):
        if inspect.isasyncgenfunction(each):
            return Kind.ASYNC_GENERATOR
        if inspect.isgeneratorfunction(each):
            return Kind.GENERATOR
        if inspect.iscoroutinefunction(each):
            return Kind.ASYNC
    return Kind.SYNC


def annotations_of(function: Callable[..., Any]) -> Mapping[str, Any]:
    """Return the annotations, evaluated where that is possible."""
    for each in layers_of(function):
        if inspect.isroutine(each):
            try:
                return typing.get_type_hints(each)
            except Exception:  # noqa: BLE001 - names of a local scope or of TYPE_CHECKING stay text
                return getattr(each, "__annotations__", {})
    return {}


def writer_parameters(function: Callable[..., Any], kind: Kind) -> tuple[str, ...]:
    """Return the parameters that are writers: ``stream``, and all that are annotated as one.

    Raises:
        TypeError: There is none, or one has the class of the other kind.
    """
    shown = getattr(function, "__qualname__", name_of(function))
    right, wrong = (StreamWriter, BlockingStreamWriter)
    if not kind.is_async:
        right, wrong = wrong, right  # type: ignore[assignment]
    hints = annotations_of(function)
    found = []
    for name, parameter in inspect.signature(function).parameters.items():
        variadic = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        hint = hints.get(name)
        if not variadic and _is(hint, wrong):
            raise TypeError(
                f"{shown} is '{kind.value}', so that its parameter {name!r} is a "
                f"{right.__name__}, not a {wrong.__name__}"
            )
        if not variadic and name == MAIN and _is_data(hint):
            raise TypeError(
                f"{shown}: the parameter 'stream' is the writer, and it is annotated as {hint!r}; "
                "give that one another name"
            )
        if not variadic and (name == MAIN or _is(hint, right)):
            found.append(name)
    if not found and not kind.yields:
        raise TypeError(
            f"{shown} needs a parameter 'stream: {right.__name__}' to send chunks with, or has to "
            "yield them"
        )
    return tuple(found)


def chunk_type_of(function: Callable[..., Any], kind: Kind) -> Any:
    """Return the type of the main stream's chunks, ``None`` if the annotations do not state it."""
    hints = annotations_of(function)
    hint, *others = alternatives(hints.get("return" if kind.yields else MAIN))
    if others:
        return None
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    expected = _GENERATORS if kind.yields else (StreamWriter, BlockingStreamWriter)
    if origin not in expected or not arguments:
        return None
    return None if _is_open(arguments[0]) else arguments[0]


def result_type_of(function: Callable[..., Any], kind: Kind) -> Any:
    """Return the activity's result type, ``inspect.Parameter.empty`` if it is not annotated.

    An annotation that names no class of values is ``Any``: the data converter would refuse each
    result for it, and the workflow's task would be retried for ever.
    """
    hint = annotations_of(function).get("return", inspect.Parameter.empty)
    if not kind.yields:
        return Any if _is_open(hint) else hint
    if kind is Kind.ASYNC_GENERATOR:
        return type(None)
    arguments, origin = typing.get_args(hint), typing.get_origin(hint) or hint
    if origin is collections.abc.Generator:
        if len(arguments) != 3:
            return inspect.Parameter.empty
        return Any if _is_open(arguments[2]) else arguments[2]
    # Without an annotation that could be evaluated the return type is unknown.
    return type(None) if origin in _GENERATORS else inspect.Parameter.empty


def _is_open(hint: Any) -> bool:
    """Whether an annotation states no type that a value can be decoded into."""
    return (
        hint is Any
        or hint is object
        or isinstance(hint, typing.TypeVar)
        or getattr(typing.get_origin(hint) or hint, "_is_protocol", False)
    )


def _is(hint: Any, wanted: type) -> bool:
    if isinstance(hint, str):  # it could not be evaluated
        names = (each.partition("[")[0].strip() for each in hint.split("|"))
        return any(each.rpartition(".")[2] == wanted.__name__ for each in names)
    return any(each is wanted or typing.get_origin(each) is wanted for each in alternatives(hint))


def _is_data(hint: Any) -> bool:
    """Whether an annotation rules out a writer, as ``stream: bool`` of a model's client does."""
    classes = [typing.get_origin(each) or each for each in alternatives(hint)]
    return bool(classes) and all(
        isinstance(each, type) and each not in (object, Any) and not hasattr(each, "send_chunk")
        for each in classes
    )
