"""Measures streamq against a bare client, in one run on one machine; only ratios count.

* ``latency``: latency and throughput on Redis, against redis-py.
* ``kafka``: the same on Apache Kafka, against aiokafka.
* ``postgres``: the same on PostgreSQL, against psycopg.
* ``s3sns``: latency, requests, their price and memory on S3 and SNS, against aioboto3.
* ``sqs``: latency and requests on SQS, against aioboto3.
* ``cost``: history events, actions and latency of every way to read an activity's chunks.
* ``delays``: how long signals, updates and cancellation wait; run by ``cost``.
* ``cancel``: time from the cancellation of a workflow to the end of its stream.
* ``streams``: many live streams from one process to another, on Redis and SQLite.
* ``revocation``: time from revoking a token to the end of its connections on two gateways.

Shared: ``measuring`` (the core that new benchmarks stand on), ``_contenders`` (the ways that
``cost`` compares), ``_bill`` (the cost of a history), ``_stamp`` (chunks with their sending time),
``_stats`` (percentiles and tables).

Design: docs/design/testing.md.
"""
