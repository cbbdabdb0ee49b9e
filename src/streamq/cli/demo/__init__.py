"""Implements ``streamq demo``.

* ``_command``: the options, and the servers that a demo starts.
* ``_plan``: the plan that the options ask for; plain values.
* ``_run``: runs worker, gateway and one workflow, and follows its stream.
* ``_activities``: the activities that produce the stream; ordinary ones, to be copied.
* ``_measurements``: measures when chunks are sent and received.
* ``_view``: shows the stream on a terminal or as plain text.

Design: docs/design/command-line.md.
"""
