"""Ends and removes the streams that crashed producers left, as a workflow on a schedule.

* ``_workflow``: ``streamq.Sweep``;
* ``_activity``: ``streamq.sweep``, the activity that it runs;
* ``_judge``: asks Temporal whether the workflow of a stream has ended;
* ``_schedule``: creates, updates and deletes the schedule.

Design: docs/design/sweeping.md.
"""
