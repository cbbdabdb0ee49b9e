"""The SQLite driver, in the rooms that every driver has.

``_driver`` opens queues and ``_queue`` is the contract. ``_reading`` and ``_writing`` are the two
threads of a queue, built on ``_thread``. ``_live_tail`` keeps the blocked reads, ``_doorbells``
wakes the readers of other processes. ``_requests`` has the SQL statements, ``_schema`` the tables,
``_errors`` what SQLite's result codes mean.

Design: docs/design/sqlite.md.
"""
