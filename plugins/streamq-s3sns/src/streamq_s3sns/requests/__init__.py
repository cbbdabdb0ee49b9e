"""The requests to AWS: one method each; nothing is retried, and no state of streams is kept.

* ``_bucket``: one bucket, with connections, time limits and errors.
* ``_server_clock``: the time of the servers, from their answers.
* ``_segments``: requests about segments and announcements.
* ``_fence_check``: checks that the server honours conditional writes.
* ``_objects``: requests about the large objects next to a stream.
* ``_lazy_clients``: clients of SNS, SQS and STS.

Design: docs/design/s3sns.md.
"""
