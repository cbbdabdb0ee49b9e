"""The SQLite driver, in the rooms that every driver has.

``_driver`` opens queues and ``_queue`` is the contract. ``_reading`` and ``_writing`` are the two
threads of a queue, built on ``_thread``. ``_live_tail`` keeps the blocked reads, ``_listening``
wakes their thread, ``_doorbells`` those of all processes. ``_requests`` has the SQL statements,
``_removal`` those that delete, ``_schema`` the tables, ``_errors`` what SQLite's result codes mean.
``_file`` notices files that are removed, ``_open_files`` is about all connections of a process,
``_reserve`` about full disks. ``_doctor`` examines a database.

Design: docs/design/sqlite.md.
"""
