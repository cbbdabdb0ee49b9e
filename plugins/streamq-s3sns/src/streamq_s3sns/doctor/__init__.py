"""Examines what an account needs before the first stream, and creates what is missing.

* ``_doctor``: bucket, versions, lifecycle rules and topic.
* ``_bucket_findings``: encryption, policy, public access and object lock of the bucket.
* ``_lifecycle_rules``: effect of a bucket's lifecycle rules on the objects below a prefix.

Design: docs/design/s3sns.md.
"""
