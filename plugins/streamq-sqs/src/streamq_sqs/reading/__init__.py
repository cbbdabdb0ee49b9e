"""Receives messages, keeps them for the readers of this process, and gives them back.

* ``_positions``: positions, which carry the receipts of messages.
* ``_receiver``: the messages received from one queue.
* ``_renewal``: extends the visibility time-outs of what slow readers hold.
* ``_readers``: the receivers of all streams that this process reads.

Design: docs/design/sqs.md.
"""

from ._positions import receipts_of
from ._readers import Readers

__all__ = ["Readers", "receipts_of"]
