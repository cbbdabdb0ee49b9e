"""Holds what workflow code uses, and the workflow that runs a detached activity.

Everything here is deterministic: it runs in workflows.

* ``_start_stream``: ``stream_activity`` and ``resume_stream`` start and resume a stream;
* ``_activity_stream``: ``ActivityStream``, the events of that stream;
* ``_poller``, with ``_poll_options``: polls a stream until it ends;
* ``_handover``: carries a stream to the next run of the workflow;
* ``_producer_call``: describes one call of a streaming activity;
* ``_producers``: starts that activity, directly or in a child workflow, and waits for it;
* ``_produce_workflow``: ``streamq.Produce``, that child workflow;
* ``_end_stream``: ends a stream whose producer could not;
* ``_stream_topic``: ``stream_topic`` chooses the stream that activities write;
* ``_inbox``: ``StreamInbox`` receives the signals of ``streamq.forward``.

Design: docs/design/temporal-reading.md.
"""
