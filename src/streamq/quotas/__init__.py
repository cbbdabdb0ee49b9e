"""Bounds what the streams of one tenant, and the holder of one token, may take of a process.

``_quotas`` reads the bounds from a file, ``_throttle`` spreads bytes over time, ``_writers`` counts
what the writers of this process take. The gateway counts for itself what its clients take.

Design: docs/design/quotas.md.
"""

from ._quotas import Quota, Quotas, TenantQuota, load_quotas
from ._throttle import Throttle

__all__ = ["Quota", "Quotas", "TenantQuota", "Throttle", "load_quotas"]
