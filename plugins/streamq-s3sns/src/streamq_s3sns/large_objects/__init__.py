"""Hands large objects over: the object is stored next to a stream, a reference is sent in it.

* ``_hand_over``: the public interface; uploads, URLs and downloads.
* ``_upload``: the upload of one object, in parts.
* ``_source``: cuts what is uploaded into parts.
* ``_lookup``: finds the object of a reference.
* ``_reference``: the chunk that stands for an object.
* ``_browser``: headers that keep browsers from running what they fetch.

Design: docs/design/s3sns.md.
"""
