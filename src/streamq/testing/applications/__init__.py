"""The test kit for applications: records what one's own streaming activities send.

Needs the extras ``testing`` and ``temporal``; :mod:`streamq.testing` exports its names.

* ``_record``: the function ``record``;
* ``_plan``: which attempts there are; ``_session``: runs them on one stream;
* ``_activity_run``: runs one attempt by the SDK's worker; ``_no_server``: in place of a server;
* ``_outcome``: how an attempt ended, and whether Temporal runs another;
* ``_script``: what happens at which chunk;
* ``_recording_writer``: the writer that records;
* ``_recorded``: what was recorded;
* ``_storage``: what is stored in memory.

It imports :mod:`streamq.temporal`, and nothing else of :mod:`streamq.testing` imports it.

Design: docs/design/testing-applications.md.
"""

from ._record import RecordOptions, record
from ._recorded import Recorded, RecordedAttempt, RecordedStream, outline
from ._recording_writer import RecordingWriter, recording_writer
from ._script import CancelReason, ScriptedError

__all__ = [
    "CancelReason",
    "RecordOptions",
    "Recorded",
    "RecordedAttempt",
    "RecordedStream",
    "RecordingWriter",
    "ScriptedError",
    "outline",
    "record",
    "recording_writer",
]
