"""Defines which drivers are changed, in which modules, and which suite has to notice.

Design: docs/design/testing.md.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The top of the checkout."""

_DROPPED = (
    "what a process still knows of a store whose last queue was closed, and what a fork does not, "
    "is a promise of this driver alone; see test_memory.py"
)
_ROOM = (
    "how much of the room an empty record takes, and that expired streams give theirs back before "
    "somebody sweeps, are promises of this driver alone; see test_memory.py"
)
_DOCTOR = "what `streamq doctor` says is no part of the contract"
_SETTINGS = "settings are described by documents and tests of their own"
_HARNESS = "a part of the kit's side, not of the driver"
_REPLIES = "which error stands for a reply of the server is tested with the replies themselves"

_REDIS_SERVERS_THAT_MOVE = dict.fromkeys(
    (
        *(
            f"streamq_redis.requests._connection_group:ConnectionGroup.{name}"
            for name in (
                *("has_dropped_since", "compare", "on_lost", "on_connected", "_give_up"),
                *("_drop_all", "_look_out"),
            )
        ),
        "streamq_redis.requests._connection_group:SharedConnection.drop",
        "streamq_redis.requests._connection_group:SharedConnection._replace",
        "streamq_redis.requests._connection:Server",
        "streamq_redis.requests._connection:Connection.drop",
        "streamq_redis.requests._connection:Connection.watch",
        "streamq_redis.requests._connection:Connection._report",
        "streamq_redis.requests._connection:Connection._judged",
        "streamq_redis.requests._connection:Connection._answer",
        "streamq_redis.requests._commands:greet",
        "streamq_redis.requests._commands:parse_greeting",
        "streamq_redis.requests._commands:is_replica",
        "streamq_redis.requests._connection_group:ConnectionGroup._lookout_gone",
        "streamq_redis.requests._connection_group:ConnectionGroup._end_lookout",
        "streamq_redis._live_tail:LiveTail._check_role",
        "streamq_redis._reading:KeyScan",
    ),
    "servers that move or change roles, and what one connection learns for all; tested by "
    "test_redis_failover.py, test_redis_connections.py and test_redis_credentials.py",
)
_REDIS_INDEX = dict.fromkeys(
    (
        "streamq_redis._writing:Appender._naming",
        "streamq_redis._reading:StreamLister._next_page",
        "streamq_redis._reading:StreamLister._keys_of",
        "streamq_redis._reading:StreamLister._listed",
        "streamq_redis._queue:RedisQueue._removal",
        *(
            f"streamq_redis.requests._commands:{name}"
            for name in ("index_name", "remove_indexed", "scan_index")
        ),
        *(
            f"streamq_redis._naming:KeySpace.{name}"
            for name in ("__init__", "index", "member", "key_of_member", "of_tenant", "members")
        ),
    ),
    "the index of names, which is an option; tested by test_redis_listing.py, "
    "test_redis_isolation.py and a conformance suite of its own",
)


@dataclass(frozen=True, slots=True)
class DriverUnderTest:
    """A sound driver, and the conformance suite that has to notice its mutants.

    Attributes:
        name: Name in lists and reports.
        modules: Names of the modules that are changed; the suite imports them.
        suite: Test file and class of the suite, below the top of the checkout.
        keyword: Selects among the suite's checks, as ``pytest -k`` does; for suites that have
            several servers.
        is_full: Whether the suite is left out of the quick tests (``full``), as a whole.
        has_threads: Whether it runs code in threads. If not, no step is moved that nobody else
            could see.
        left_out: What is not changed, and why: modules of the driver, or functions and classes
            in one of ``modules``, as ``module:qualified.name``.
    """

    name: str
    modules: tuple[str, ...]
    suite: str
    keyword: str = ""
    is_full: bool = False
    has_threads: bool = True
    left_out: Mapping[str, str] = field(default_factory=dict)

    def path(self, module: str) -> Path:
        """Return the file of a module."""
        found = importlib.util.find_spec(module)
        if found is None or found.origin is None:
            raise LookupError(f"driver {self.name}: there is no module {module}; check its name")
        return Path(found.origin)

    def left_out_of(self, module: str) -> frozenset[str]:
        """Return the qualified names that stay as they are in a module."""
        return frozenset(
            name.partition(":")[2] for name in self.left_out if name.startswith(f"{module}:")
        )


def _kit(name: str, *, is_full: bool = False, **left_out: str) -> DriverUnderTest:
    module = f"tests.kit.{name}_driver"
    return DriverUnderTest(
        name=name,
        modules=(module,),
        suite=f"tests/kit/test_{name}_driver.py::Test{name.title()}",
        is_full=is_full,
        left_out={f"{module}:{code}": reason for code, reason in left_out.items()},
    )


DRIVERS = (
    DriverUnderTest(
        name="memory",
        modules=("streamq.memory",),
        suite="tests/drivers/test_memory.py::TestConformance",
        left_out={
            "streamq.memory:MemorySettings": _SETTINGS,
            "streamq.memory:MemoryDriver.examine": _DOCTOR,
            "streamq.memory:_Store._begin": _ROOM,
            "streamq.memory:_Store._has_room": _ROOM,
            "streamq.memory:_cost": _ROOM,
            "streamq.memory:_Stores": _DROPPED,
            "streamq.memory:_raise_dropped": _DROPPED,
        },
    ),
    _kit(
        "directory",
        is_full=True,
        DirectorySettings=_SETTINGS,
        _error="which error stands for one of the file system; see test_directory_driver.py",
    ),
    _kit("log", LogSettings=_SETTINGS, LogHarness=_HARNESS),
    _kit("mailbox", MailboxSettings=_SETTINGS, MailboxHarness=_HARNESS),
    _kit("modest", ModestSettings=_SETTINGS, ModestHarness=_HARNESS),
    DriverUnderTest(
        name="sqlite",
        modules=tuple(
            f"streamq._sqlite.{room}"
            for room in (
                *("_driver", "_listening", "_live_tail", "_queue", "_reading", "_removal"),
                *("_requests", "_schema", "_thread", "_writing"),
            )
        ),
        suite="tests/drivers/test_sqlite_conformance.py::TestConformance",
        left_out={
            "streamq._sqlite._settings": _SETTINGS,
            "streamq._sqlite._doctor": _DOCTOR,
            "streamq._sqlite._errors": _REPLIES,
            "streamq._sqlite._driver:SqliteDriver.examine": _DOCTOR,
            **dict.fromkeys(
                (
                    "streamq._sqlite._doorbells",
                    *(
                        f"streamq._sqlite._listening:CommitListener.{bell}"
                        for bell in (
                            *("hear_commits", "rest", "_patience", "_renew_bell", "_silence"),
                            "_drop_bell",
                        )
                    ),
                    "streamq._sqlite._writing:WritingThread._ring",
                ),
                "wakes readers sooner than the poll that is the promise; tested by "
                "test_sqlite_doorbells.py, which kills processes and removes files",
            ),
            **dict.fromkeys(
                (
                    "streamq._sqlite._writing:WritingThread._sweep",
                    "streamq._sqlite._writing:WritingThread.log_is_long",
                    "streamq._sqlite._removal:_in_one_step",
                    "streamq._sqlite._queue:SqliteQueue._may_go_on",
                ),
                "how soon, and in which steps, streams are removed; tested by "
                "test_sqlite_removing.py",
            ),
            **dict.fromkeys(
                (
                    *("streamq._sqlite._file", "streamq._sqlite._open_files"),
                    "streamq._sqlite._thread:ConnectionThread._open",
                    "streamq._sqlite._thread:ConnectionThread._check_file",
                    "streamq._sqlite._thread:ConnectionThread._connected",
                    "streamq._sqlite._thread:ConnectionThread._disconnect",
                    "streamq._sqlite._thread:_merge_log",
                    "streamq._sqlite._reading:ReadingThread._open",
                    "streamq._sqlite._reading:ReadingThread.nudge",
                    "streamq._sqlite._reading:ReadingThread._wait",
                    "streamq._sqlite._writing:WritingThread.append",
                    "streamq._sqlite._writing:WritingThread._check_commit",
                    "streamq._sqlite._writing:WritingThread.nudge",
                    "streamq._sqlite._writing:WritingThread._wait",
                ),
                "files that are removed or replaced under an open queue, and forks, which no other "
                "backend has; tested by test_sqlite_removed_files.py and tests/core/test_home.py",
            ),
            **dict.fromkeys(
                (
                    *("streamq._sqlite._reserve", "streamq._sqlite._schema:connect_alone"),
                    "streamq._sqlite._thread:ConnectionThread._open_if_there_is_room",
                    "streamq._sqlite._reading:ReadingThread._reading",
                    "streamq._sqlite._writing:WritingThread._transact",
                ),
                "deleting on a full disk needs a full file system; see test_sqlite_full_disk.py",
            ),
            **dict.fromkeys(
                (
                    "streamq._sqlite._schema:_use_wal",
                    "streamq._sqlite._schema:_is_current",
                    "streamq._sqlite._schema:_create",
                    "streamq._sqlite._schema:_exists",
                    "streamq._sqlite._schema:_connection",
                ),
                "files of other applications, and those that another process creates at the same "
                "moment; tested by test_sqlite_opening.py and test_sqlite_processes.py",
            ),
            "streamq._sqlite._schema:_tune": "what survives a power cut; how long the log is",
            "streamq._sqlite._writing:WritingThread._fail": "one bad append does not fail those "
            "that share its transaction; tested by test_sqlite_writing.py",
        },
    ),
    DriverUnderTest(
        name="redis",
        modules=tuple(
            f"streamq_redis.{room}"
            for room in (
                *("_driver", "_live_tail", "_naming", "_queue", "_reading", "_writing"),
                *("requests._commands", "requests._connection", "requests._connection_group"),
            )
        ),
        suite="plugins/streamq-redis/tests/test_redis_conformance.py::TestRedis",
        has_threads=False,
        keyword="valkey",  # twice the time for another server would find the same
        left_out={
            "streamq_redis._settings": _SETTINGS,
            "streamq_redis._errors": _REPLIES,
            "streamq_redis.doctor": _DOCTOR,
            "streamq_redis._driver:RedisDriver.examine": _DOCTOR,
            "streamq_redis._driver:RedisDriver.embedded": "a server for demos",
            "streamq_redis.embedded": "a server for demos",
            "streamq_redis.requests._handshake": "logins, TLS and replicas, tested by "
            "test_redis_encryption.py, test_redis_failover.py and test_redis_permissions.py",
            "streamq_redis.requests._login": "sources of credentials, tested by "
            "test_redis_credentials.py",
            "streamq_redis.requests._resolver": "addresses that move, tested by "
            "test_redis_failover.py",
            **_REDIS_SERVERS_THAT_MOVE,
            **_REDIS_INDEX,
            "streamq_redis._driver:RedisDriver.open": "servers that are refused at open, tested by "
            "test_redis_opening.py",
            **dict.fromkeys(
                (
                    "streamq_redis._queue:RedisQueue._learn",
                    "streamq_redis.requests._commands:parse_durability",
                    "streamq_redis.requests._commands:persistence",
                ),
                "which settings of a server make it durable, tested by test_redis_opening.py and "
                "test_redis_doctor.py",
            ),
            **dict.fromkeys(
                (
                    "streamq_redis._writing:Appender._newest_epoch",
                    "streamq_redis.requests._commands:last_id",
                    "streamq_redis.requests._commands:parse_last_id",
                ),
                "the fence of a stream that was deleted at this moment, or whose newest record was "
                "removed, also for users who may not ask for it; tested by test_redis_writing.py "
                "and test_redis_permissions.py",
            ),
            **dict.fromkeys(
                (
                    "streamq_redis._writing:Appender._will_bare_add_do",
                    "streamq_redis._writing:Appender._remember",
                    "streamq_redis._writing:lag_of",
                    "streamq_redis._reading:StreamLister._promised",
                ),
                "how often, and for how many streams, the time to live is set again, and how much "
                "longer than asked for; tested by test_redis_writing.py",
            ),
            "streamq_redis._reading:_visible": "what a server does not let its users see, tested "
            "by test_redis_permissions.py",
            "streamq_redis.requests._connection:Connection._end_unless_first": "answers that came "
            "while the event loop was blocked, tested by test_redis_connections.py",
            "streamq_redis.requests._connection:Connection._disconnect": "a socket that accepts no "
            "more bytes, tested by test_redis_connections.py",
            "streamq_redis._naming:skipped": "which keys of other programs the log names, tested "
            "by test_redis_naming.py",
            "streamq_redis._driver:_embedded": "a server for demos",
            **dict.fromkeys(
                ("streamq_redis._reading:PageSizes", "streamq_redis._reading:Pages"),
                "how many requests a read takes, tested by test_redis_reading.py",
            ),
            "streamq_redis._writing:rejected": _REPLIES,
            **dict.fromkeys(
                (
                    "streamq_redis._live_tail:LiveTail._schedule",
                    "streamq_redis._live_tail:LiveTail._send",
                    "streamq_redis._live_tail:LiveTail._on_replies",
                    "streamq_redis._live_tail:LiveTail._longest_block",
                    "streamq_redis._live_tail:LiveTail._begin_interrupt",
                    "streamq_redis._live_tail:LiveTail._interrupt",
                    "streamq_redis._live_tail:LiveTail._on_unblocked",
                ),
                "how long a read blocks, how often it is interrupted, and when its connection "
                "counts as half open; tested by test_redis_live_tail.py and "
                "test_redis_permissions.py",
            ),
            "streamq_redis._live_tail:ReplySize": "how large a reply is, tested by "
            "test_redis_live_tail.py",
            "streamq_redis._live_tail:LiveTail._drop_idle": "how long a stream is followed after "
            "its last reader, tested by test_redis_live_tail.py",
            **dict.fromkeys(
                (
                    "streamq_redis.requests._connection:_Unsent",
                    "streamq_redis.requests._connection:Connection.writable",
                    "streamq_redis.requests._connection_group:SharedConnection.writable",
                ),
                "how much may wait for a network that takes no more, tested by "
                "test_redis_connections.py",
            ),
        },
    ),
)


def find_driver(name: str) -> DriverUnderTest:
    """Return a driver of the table, or the object that ``module:name`` names.

    Raises:
        LookupError: There is none.
    """
    for driver in DRIVERS:
        if driver.name == name:
            return driver
    module, _, attribute = name.partition(":")
    known = ", ".join(driver.name for driver in DRIVERS)
    if attribute:
        found = getattr(importlib.import_module(module), attribute, None)
        if isinstance(found, DriverUnderTest):
            return found
        raise LookupError(f"{name} is no DriverUnderTest")
    raise LookupError(f"there is no driver {name!r}: take one of {known}, or MODULE:NAME")
