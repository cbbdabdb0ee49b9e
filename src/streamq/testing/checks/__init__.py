"""The checks of the conformance suite, one module for each group.

:class:`streamq.testing.DriverSuite` is made of all groups. A suite that cannot fulfil all of them,
such as one for a second service behind a driver, derives from the groups that apply.

Checks of what is stored:

* ``_basics``: bytes, bounds, descriptions, deletion.
* ``_counting``: numbers of records and bytes.
* ``_ordering``: order and repeated appends.
* ``_replay``: reading again, from any position.
* ``_trimming``: records that were removed while a reader was away.
* ``_consuming``: backends without replay, where an acknowledgement removes what was read.
* ``_expiry``, ``_listing``, ``_limits``: lifetimes, lists of streams, declared limits.

Checks of whole streams, through writers and readers:

* ``_fencing``, ``_attempts``: takeover by a newer attempt, and the events that readers get.
* ``_endings``: every stream ends exactly once.
* ``_late_join``: readers that join late.
* ``_many_appends``: appends to several streams that travel together.

Checks of operation:

* ``_waiting``, ``_waking``: waiting reads, wake-ups, latency; several reads of one stream.
* ``_lifecycle``: opening and closing.
* ``_cancelling``: calls that are cancelled.
* ``_leaving``: closing and opening that are cancelled again and again.
* ``_faults``, ``_outages``: broken connections, restarts, servers that hang.
* ``_refusals``: full, read-only and unreachable servers, wrong credentials.
* ``_declarations``: declared capabilities, and refusal of the others.
* ``_processes``: other processes that write, take over and delete.

Shared by the groups: ``_base`` (base class with pytest fixtures), ``_streams`` (writers and
readers), ``_conditions`` (``requires``, ``needs``), ``_promises`` and ``_sentences`` (what the
contract says), ``_verdicts``, ``_differences`` and ``_deadlines`` (what a failure says),
``_records``, ``_stream_names``, ``_other_process``.

Design: docs/design/testing.md.
"""

from ._attempts import AttemptChecks
from ._basics import BasicChecks
from ._cancelling import CancellingChecks
from ._connections import ConnectionChecks
from ._consuming import ConsumingChecks
from ._counting import CountingChecks
from ._declarations import DeclarationChecks
from ._endings import EndingChecks
from ._expired import ExpiredChecks
from ._expiry import ExpiryChecks
from ._faults import FaultChecks
from ._fencing import FencingChecks
from ._hiding import HidingChecks
from ._late_join import LateJoinChecks
from ._leaving import LeavingChecks
from ._lifecycle import LifecycleChecks
from ._limits import LimitChecks
from ._listing import ListingChecks
from ._many_appends import ManyAppendChecks
from ._ordering import OrderingChecks
from ._outages import OutageChecks
from ._pages import PageChecks
from ._processes import ProcessChecks
from ._races import RaceChecks
from ._refusals import RefusalChecks
from ._replay import ReplayChecks
from ._stream_names import TRICKY_NAMES
from ._timing import TimingChecks
from ._trimming import TrimmingChecks
from ._waiting import WaitingChecks
from ._waking import WakingChecks

__all__ = [
    "TRICKY_NAMES",
    "AttemptChecks",
    "BasicChecks",
    "CancellingChecks",
    "ConnectionChecks",
    "ConsumingChecks",
    "CountingChecks",
    "DeclarationChecks",
    "EndingChecks",
    "ExpiredChecks",
    "ExpiryChecks",
    "FaultChecks",
    "FencingChecks",
    "HidingChecks",
    "LateJoinChecks",
    "LeavingChecks",
    "LifecycleChecks",
    "LimitChecks",
    "ListingChecks",
    "ManyAppendChecks",
    "OrderingChecks",
    "OutageChecks",
    "PageChecks",
    "ProcessChecks",
    "RaceChecks",
    "RefusalChecks",
    "ReplayChecks",
    "TimingChecks",
    "TrimmingChecks",
    "WaitingChecks",
    "WakingChecks",
]
