"""Adds the streams of prefixes to a connection, as many at once as it may have.

Design: docs/design/many-streams.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from streamq._errors import StreamNotFoundError, StreamqError
from streamq._events import StreamId
from streamq.access import Action
from streamq.gateway._error_responses import Problem, StreamsLimitError
from streamq.gateway._places import EventPlace, NamedPlace

from ._asked import MOST_BY_POST, Asked
from ._labels import error_frame
from ._prefix_watchers import MOST_FOUND, Found
from ._stream_line import LineState, StreamLine, Surroundings

_OPENING = 16
_TOO_MANY, _NO_ROOM, _NO_ID = "too many", "no room", "no id"


@dataclass(frozen=True, slots=True)
class PrefixSearch:
    """Where the streams of a prefix are looked for.

    Attributes:
        asked: The prefix by which the client knows it.
        searched: What is searched: of what it may list, the part below the prefix.
    """

    asked: str
    searched: tuple[str, ...]


class PrefixStreams:
    """The streams that the prefixes of one connection have found.

    A name that is not listed any more and is listed again is read on after the place where it was
    left; if that place is of an earlier stream, it is a new one, which begins anew. A stream that
    was gone when it was read, and is listed by a look that began after that, is a new one.

    Args:
        around: What all streams of the connection share.
        asked: What the request asks for.
        searches: The prefixes.
        start: Begins to follow a stream.
        room: Returns how many more streams the connection may follow now.
    """

    def __init__(
        self,
        around: Surroundings,
        asked: Asked,
        searches: Iterable[PrefixSearch],
        start: Callable[[StreamLine], None],
        room: Callable[[], int],
    ) -> None:
        self.failure: StreamqError | None = None
        """Why a prefix could not be looked at the first time."""
        self._around = around
        self._watchers = around.gateway.prefixes
        self._asked = asked
        self._start = start
        self._room = room
        self._prefixes = {each: search.asked for search in searches for each in search.searched}
        self._unlisted = set(self._prefixes)
        self._listed: set[str] | None = set()  # until every prefix was looked at
        self._waiting: dict[str, bool] = {}  # whether each is new
        self._lines: dict[str, StreamLine] = {}
        self._opening: set[StreamLine] = set()
        self._over: dict[str, EventPlace] = dict.fromkeys(asked.names, EventPlace(0))
        self._left: dict[str, EventPlace] = {}  # where those were left that are listed no more
        self._lost: set[str] = set()  # not listed any more, though still followed
        self._back: set[str] = set()  # and listed again
        self._gone: dict[str, float] = {}  # gone when read, and since when
        self._limited: set[tuple[str, str]] = set()

    @property
    def are_listed(self) -> bool:
        """Whether each prefix was looked at once."""
        return not self._unlisted

    @property
    def are_placed(self) -> bool:
        """Whether each was looked at, and it is known where the streams found there begin."""
        is_full = not self._waiting or self._room() <= 0
        return not self._unlisted and not self._opening and is_full

    def join(self) -> None:
        """Begin to look."""
        for searched in self._prefixes:
            self._watchers.join(self._around.found_rights.tenant, searched, self)

    def leave(self) -> None:
        """Look no longer. Idempotent."""
        for searched in self._prefixes:
            self._watchers.leave(self._around.found_rights.tenant, searched, self)

    def found(self, prefix: str, found: Found, *, is_first: bool) -> None:
        """Take what a look has found."""
        for name in found.names if is_first else found.added:
            self._add(name, is_new=not is_first)
        for name in () if is_first else found.removed:
            self._remove(name)
        for name, since in list(self._gone.items()):
            if name.startswith(prefix) and found.began > since:
                del self._gone[name]
                if name in found.names:
                    self._waiting[name] = True
        if not found.is_complete:
            self._limit(
                prefix,
                _TOO_MANY,
                f"more than {MOST_FOUND:,} streams begin with it, and the others are left out: "
                "give a longer prefix",
                retryable=True,
            )
        self._note_listed(prefix, found)
        self._fill()
        self._around.changed(None)

    def failed(self, prefix: str, error: StreamqError) -> None:
        """Report that a look has failed; looks go on."""
        if prefix in self._unlisted:
            self.failure = error
        self._report(prefix, error, retryable=True)
        self._around.changed(None)

    def note(self, line: StreamLine) -> None:
        """Note that the state of a stream has changed; when one is over, another has its place."""
        if line.state is LineState.OPENING:
            return
        self._opening.discard(line)
        name = line.asked.name
        if line.is_over and self._lines.get(name) is line:
            del self._lines[name]
            if isinstance(line.failure, StreamNotFoundError):
                self._lost.discard(name)
                self._back.discard(name)
                self._forget(name)
                self._gone[name] = time.monotonic()
            elif name in self._lost:
                self._lost.discard(name)
                self._leave(name, line.place)
                if name in self._back:
                    self._back.discard(name)
                    self._waiting[name] = True
            else:
                self._over[name] = line.place
        self._fill()

    def _add(self, name: str, *, is_new: bool) -> None:
        stream = StreamId(self._around.found_rights.tenant, name)
        rights = self._around.found_rights
        if not (rights.allow(Action.LIST, stream) and rights.allow(Action.READ, stream)):
            return
        if self._listed is not None:
            self._listed.add(name)
        if name in self._lines:
            if name in self._lost:
                self._back.add(name)
        elif name not in self._over and name not in self._gone:
            self._waiting.setdefault(name, is_new)

    def _remove(self, name: str) -> None:
        self._waiting.pop(name, None)
        if name in self._lines:
            self._lost.add(name)
            self._back.discard(name)
        elif name in self._over and name not in self._asked.names:
            self._leave(name, self._over.pop(name))

    def _leave(self, name: str, place: EventPlace) -> None:
        self._forget(name)
        self._left[name] = place
        if len(self._left) > MOST_FOUND:
            del self._left[next(iter(self._left))]

    def _forget(self, name: str) -> None:
        if self._around.token is not None:  # what is gone takes no room in ids
            self._around.token.forget(name)

    def _note_listed(self, prefix: str, found: Found) -> None:
        self._unlisted.discard(prefix)
        if not found.is_complete:
            self._listed = None
        if self._listed is not None and not self._unlisted:
            if self._around.token is not None:
                self._around.token.keep(self._listed)
            self._listed = None

    def _fill(self) -> None:
        """Follow those that wait, as many as there is room for."""
        token = self._around.token
        while self._waiting and len(self._opening) < _OPENING:
            name = next(iter(self._waiting))
            if token is not None and not token.admit(name, self._asked.most):
                if self._listed is not None and self._unlisted:
                    return  # there is more room when it is known what is not there any more
                del self._waiting[name]
                self._over[name] = EventPlace(0)
                self._limit(
                    self._prefix_of(name),
                    _NO_ID,
                    f"the ids of this connection have the places of {token.admitted:,} streams, "
                    f"and may have {self._asked.most:,}: the others are left out. POST /events "
                    f"takes {MOST_BY_POST:,} at once, and any number that has ended",
                    retryable=False,
                )
                continue
            if self._room() <= 0:
                self._limit(
                    self._prefix_of(name),
                    _NO_ROOM,
                    f"this connection follows {self._asked.most:,} streams, the most that it may "
                    "at once; the others wait until one of them ends",
                    retryable=True,
                )
                return
            is_new = self._waiting.pop(name)
            self._follow(name, is_new=is_new)
        if not self._waiting:
            self._limited = {each for each in self._limited if each[1] != _NO_ROOM}

    def _follow(self, name: str, *, is_new: bool) -> None:
        begin = self._left.pop(name, None) or self._begin(name, is_new=is_new)
        stream = StreamId(self._around.found_rights.tenant, name)
        line = StreamLine(self._around, stream, begin, is_named=False, is_new=is_new)
        self._lines[name] = line
        self._opening.add(line)
        self._start(line)

    def _begin(self, name: str, *, is_new: bool) -> EventPlace | NamedPlace:
        known = self._asked.places.of(name)
        if known is not None:
            return known
        # A client that brings places has heard of all that were there when it came first.
        return EventPlace(0) if is_new or self._asked.comes_back else self._asked.start

    def _prefix_of(self, name: str) -> str:
        return next(each for each in self._prefixes if name.startswith(each))

    def _limit(self, prefix: str, kind: str, why: str, *, retryable: bool) -> None:
        """Say once that streams are left out, or have to wait."""
        asked = self._prefixes[prefix]
        if (asked, kind) not in self._limited:
            self._limited.add((asked, kind))
            self._report(prefix, StreamsLimitError(f"prefix {asked!r}: {why}"), retryable=retryable)

    def _report(self, prefix: str, error: StreamqError, *, retryable: bool) -> None:
        asked = self._prefixes[prefix]
        frame = error_frame("prefix", asked, Problem.of(error), retryable=retryable)
        self._around.rotation.post(frame)
