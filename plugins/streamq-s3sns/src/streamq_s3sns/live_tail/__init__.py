"""Follows what is new in all streams that the process reads, by notifications and by polling.

Notifications go from an SNS topic to an SQS queue of each process that waits. They are hints and
nothing else: one that is lost, late, repeated, out of order or invented causes a request to S3 more
or less. All data is read from S3.

* ``_live_tail``: lets readers wait, and decides when they poll.
* ``_listener``: receives notifications.
* ``_publisher``: sends notifications.
* ``_wake_up_queue``: the SQS queue of this process.
* ``_orphaned_queues``: removes the SQS queues of processes that were killed.

Design: docs/design/s3sns.md.
"""
