"""Appends entries: the writer that wins the next segment number has the stream.

* ``_append``: decides which request comes next; a pure state machine.
* ``_appender``: makes the requests of an append.

Design: docs/design/s3sns.md.
"""
