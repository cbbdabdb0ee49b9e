"""Runs the user's streaming activities and the writers of their streams.

* ``_decorator``: ``@streaming_activity``;
* ``_signature``: reads from a function's signature which streams it writes, and how;
* ``_wrapping``: looks through decorators, partials and callable objects;
* ``_running``: makes the function that Temporal calls;
* ``_attempt``: runs one attempt and ends its streams as the attempt ends;
* ``_leaving``: decides what leaves an attempt, and how its streams end;
* ``_ending``: how the streams of an attempt end;
* ``_execution_ending``: asks Temporal how an execution ended meanwhile;
* ``_recording``: finds out how Temporal will record a result or a failure;
* ``_own_writers``: ends the streams that an activity opened itself;
* ``_opening``: opens the writers of an attempt;
* ``_given_writers``: hands the writers to the function;
* ``_heartbeats``: sends heartbeats, and cancels the work if a writer stops;
* ``_heartbeat_details``: keeps the user's heartbeat details next to streamq's;
* ``_discarding``: a writer for an attempt whose stream has ended already.

Design: docs/design/temporal-producing.md.
"""
