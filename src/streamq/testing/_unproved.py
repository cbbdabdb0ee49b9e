"""Lists the sentences of the contract that no check proves, each with the reason.

Design: docs/design/testing.md.
"""

from __future__ import annotations

_DEFINES = "defines a word"
_ALLOWS = "allows something and demands nothing"
_CORE = "says what streamq itself does, which its own tests prove"
_REQUESTS = "the kit sees the answers of a driver, not its requests: measure it in a benchmark"
_DOCTOR = "needs a server that is misconfigured, as tests of the driver can provide it"
_REFERENCE = "describes an argument or a field"

UNPROVED: dict[tuple[str, str], str] = {
    ("ChunkQueue", "An open connection to a backend."): _DEFINES,
    ("ChunkQueue", "It belongs to the event loop and the process"): _DEFINES,
    ("ChunkQueue.hidden_seconds", "Longest time for which records"): (
        "the time-out of the backend may be hours; a reader waits for as long as is declared"
    ),
    ("ChunkQueue.home", "The event loop and process"): _DEFINES,
    ("ChunkQueue.home", "This class sets it"): _CORE,
    ("ChunkQueue.append", "(A repeat of an entry that was stored before"): _ALLOWS,
    ("ChunkQueue.append", "An entry older than an epoch that the driver happens to know"): (
        "a recommendation: which epochs a driver knows is its own matter"
    ),
    ("ChunkQueue.append", "streamq repeats it with the same entries"): _CORE,
    ("ChunkQueue.append", "With a quota of the tenant it passes one"): _CORE,
    ("ChunkQueue.append", "streamq itself keeps each at or below"): _CORE,
    ("ChunkQueue.append", "It stops adding records when an append has reached"): _CORE,
    ("ChunkQueue.append", "Which stream."): _REFERENCE,
    ("ChunkQueue.append", "Allowed where streams are not fenced"): _ALLOWS,
    ("ChunkQueue.append_many", "Optional: the default calls"): _DEFINES,
    ("ChunkQueue.append_many", "streamq calls it only where a driver implements"): _CORE,
    ("ChunkQueue.append_many", "It pays where one request"): _DEFINES,
    ("ChunkQueue.append_many", "Size: streamq hands over"): _CORE,
    ("ChunkQueue.append_many", "Of different streams; none has no effect."): _REFERENCE,
    ("StreamAppend", "One append among several"): _DEFINES,
    ("StreamAppend.stream", "Which stream."): _REFERENCE,
    ("StreamAppend.entries", "In order."): _REFERENCE,
    ("StreamAppend.ttl", "Time to live from now"): _REFERENCE,
    ("ChunkQueue.read", "The backend may deliver nothing more"): _ALLOWS,
    ("ChunkQueue.read", "The same call, repeated by whichever process"): _ALLOWS,
    ("ChunkQueue.read", "streamq takes such a page"): _CORE,
    ("ChunkQueue.read", "Size: a reader requests"): _CORE,
    ("ChunkQueue.read", "A takeover and a sweep request"): _CORE,
    ("ChunkQueue.read", "Which stream."): _REFERENCE,
    ("ChunkQueue.describe", "Cost: a number of round trips"): _REQUESTS,
    ("ChunkQueue.describe", "streamq calls it twice"): _CORE,
    ("ChunkQueue.describe", "``last`` is 4"): _CORE,
    ("ChunkQueue.delete", "Without ``capabilities.erases``"): _ALLOWS,
    ("ChunkQueue.streams", "Cost: one request for each page"): _REQUESTS,
    ("ChunkQueue.streams", "streamq may take minutes"): (
        "a check of minutes would double the time of the kit"
    ),
    ("ChunkQueue.aclose", "It limits its own duration."): (
        "the checks close queues of servers that answer; close_all() limits each step"
    ),
    ("ChunkQueue.abandon", "Called in any loop or thread"): _CORE,
    ("ChunkQueue.abandon", "For drivers with threads of their own"): _DEFINES,
    ("ChunkQueue.abandon", "In a child it must not touch"): (
        "a process that forks with an event loop and threads cannot go on testing"
    ),
    ("ChunkQueue.commit", "Only backends without replay need it"): _DEFINES,
    ("ChunkQueue.commit", "Cancellation and errors: the records are acknowledged"): _ALLOWS,
    ("ChunkQueue.commit", "Which stream."): _REFERENCE,
    ("ChunkQueue.commit", "The position of the last record"): _REFERENCE,
    ("ChunkQueue.release", "Only backends without replay need it"): _DEFINES,
    ("ChunkQueue.newest_epoch", "Only backends that do not fence need it."): _DEFINES,
    ("ChunkQueue.newest_epoch", "Every open writer calls this"): _CORE,
    ("ChunkQueue.newest_epoch", "The backend fences."): _CORE,
    ("ChunkQueue.sweep", "Only for backends that do not do so"): _DEFINES,
    ("ChunkQueue.sweep", "Cancellation and errors: some of the streams"): _ALLOWS,
    ("Driver", "Factory of queues for one backend"): _DEFINES,
    ("Driver", "Never instantiated."): _CORE,
    ("Driver.open", "streamq retries opening"): _CORE,
    ("Driver.open", "The settings contradict each other"): _DOCTOR,
    ("Driver.examine", "Examine what :meth:`open` needs"): _DOCTOR,
    ("Driver.examine", "The default opens a queue"): _CORE,
    ("Driver.examine", "The server cannot be examined"): _DOCTOR,
    ("Driver.provision", "Create what :meth:`examine` finds missing"): _DOCTOR,
    ("Driver.provision", "What was created, one line each."): _DOCTOR,
    ("Driver.provision", "The default creates nothing"): _CORE,
    ("Driver.provision", "Something could not be created."): _DOCTOR,
    ("Driver.embedded", "Return a small real server"): (
        "programs that a machine may lack; `streamq demo` starts the server, as do the tests of "
        "the driver"
    ),
    ("Driver.embedded", "Entering the result starts the server"): (
        "as above: the demo is the proof"
    ),
    ("Driver.embedded", ":class:`streamq.devserver.DevServer` does most"): _DEFINES,
    ("Capabilities", "Nothing is emulated in silence."): _CORE,
    ("Capabilities.fenced", "Without it, readers drop stale records"): _CORE,
    ("Capabilities.durable", "It is no promise about a lost disk"): (
        "no test takes a disk or the power away"
    ),
    ("Capabilities.expires", "Its bytes may stay until"): _ALLOWS,
    ("Capabilities.erases", "Backups and copies outside it"): _ALLOWS,
    ("Capabilities.writable", "Whether streams can be opened for writing"): _CORE,
    ("Capabilities.writable", "The backend itself does"): _CORE,
    ("Capabilities.flags", "Names of the capabilities"): _CORE,
    ("Capabilities.to_dict", "Return the capabilities as JSON-ready data."): _CORE,
    ("Entry", "A record to be stored."): _DEFINES,
    ("Entry.data", "streamq itself makes no entry"): _CORE,
    ("Stored", "A record as read."): _DEFINES,
    ("StreamInfo", "Information that a backend has"): _DEFINES,
    ("StreamInfo.stream", "Which stream."): _REFERENCE,
    ("QueueOptions", "Options that every queue is opened with"): _DEFINES,
    ("Finding", "One thing that ``streamq doctor`` examined."): _DEFINES,
    ("Finding.subject", "What was examined"): _REFERENCE,
    ("Finding.ok", "Whether it is as it should be."): _REFERENCE,
    ("Finding.ok", "Not, if a promise of the queue does not hold."): _DOCTOR,
    ("Finding.detail", "What was found."): _REFERENCE,
    ("Finding.is_warning", "It works, and does not survive"): _REFERENCE,
}
"""For each object and the beginning of a sentence, why no check proves it."""
