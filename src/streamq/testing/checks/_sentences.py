"""Names the sentences of the contract, and the causes of failures, that several checks quote.

Design: docs/design/testing.md.
"""

REFLECTED = (
    "ChunkQueue.describe",
    "Every entry whose append had returned before the call is reflected, across processes.",
)
NEWEST_FIRST = (
    "StreamInfo.last",
    "The newest records, newest first, as many as were requested and exist.",
)
FENCED = (
    "ChunkQueue.append",
    "If the newest entry has a newer epoch, nothing older is added: ``FencedError``.",
)
ONE_STEP = (
    "ChunkQueue.append",
    "Comparing and storing is one step, for writers in other processes as well.",
)
PREFIX = (
    "ChunkQueue.append",
    "a prefix of the entries is stored, in order and each one whole, or none; repeating the call "
    "is always safe",
)
FAILED_APPEND = (
    "ChunkQueue.append",
    "An append that raises leaves the same behind: nothing, a prefix, or everything.",
)
OLDEST_LEFT = (
    "ChunkQueue.read",
    "If its record is no longer stored, reading continues with the oldest one after it; streamq "
    "detects what is missing.",
)
REPEATED_READ = ("ChunkQueue.read", "nothing is lost; the same call can be repeated")
HEALS = (
    "ChunkQueue",
    "After an outage the queue works again by itself: a call on a connection that is broken fails "
    "with ``BackendUnavailableError`` at most, and a later one connects anew.",
)
CANCELLED = (
    "ChunkQueue",
    "A cancelled call ends with ``CancelledError`` at the await where it stood, and the queue can "
    "be used as before: no lock stays held, and no answer reaches another call.",
)
RELEASED = ("ChunkQueue.aclose", "No task, thread, connection or file of the queue is left.")
FAILED_OPEN = (
    "Driver.open",
    "Cancellation, at any await and however often, and errors: nothing is left, neither task nor "
    "thread, connection or file.",
)
EVERY_READER = (
    "Capabilities.fan_out",
    "Any number of readers get every record of a stream; none takes records from another.",
)

NOT_COMPARED = (
    "the epoch is not compared with that of the newest stored entry, or only for entries with "
    "index 0: new_entries() of streamq.driver has the rules"
)
TWO_STEPS = (
    "the newest epoch is looked up first, and the entry stored in a second step: between both "
    "another attempt has taken over; compare and store in one transaction, script or condition"
)
NO_DEADLINE = (
    "nothing limits the wait for an answer: the client's own time-out is none, or longer; and a "
    "read that waits for news does not notice that its connection is gone"
)
