"""Holds streamq's own activities, ``streamq.*``, which any workflow may call by name.

* ``_poll``, with its input and result in ``_poll_request``: ``streamq.poll`` returns events;
* ``_seal``: ``streamq.seal`` ends a stream that its producer could not end;
* ``_forward``: ``streamq.forward`` sends a stream to another workflow as signals;
* ``_summarize``: ``streamq.summary`` counts a stream and computes its digest;
* ``_watch``: ``streamq.watch`` and ``streamq.result`` wait for the end of another workflow.

Shared by them: ``_context`` (the worker's queue and settings), ``_waiting`` (waiting outside of
activity slots), ``_heartbeats``, ``_epoch`` (the epoch of an attempt), ``_poll_limits``
(how much a poll or a signal collects).

Design: docs/design/temporal-reading.md.
"""
