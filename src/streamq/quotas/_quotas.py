"""Defines quotas, and reads them from the file that the settings name.

Design: docs/design/quotas.md.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from streamq._errors import ConfigurationError
from streamq._settings import Settings
from streamq.driver import seen_value

Count = Annotated[int, Field(gt=0, strict=True)]


class Quota(BaseModel):
    """What the readers of one tenant, or one holder of tokens, may take of a gateway process.

    ``None`` is no bound besides those of the gateway.

    Attributes:
        connections: Open event streams.
        streams: Different streams that are followed.
        catch_ups: Pages of stored events that are read at once; further ones wait in turn.
        lists: Lists of streams that are made at once; further ones wait in turn.
        bytes_per_second: Bytes of events sent in one second, on average; more is delayed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    connections: Count | None = None
    streams: Count | None = None
    catch_ups: Count | None = None
    lists: Count | None = None
    bytes_per_second: Count | None = None


class TenantQuota(Quota):
    """What one tenant may take: its readers of a gateway process, its writers of a worker process.

    Attributes:
        writers: Writers that are open at once.
        written_bytes_per_second: Bytes stored in one second, on average; more is delayed, so that
            buffers fill and ``send_chunk`` waits.
        attempt_bytes: Bytes of chunks that one writer accepts in all.
        kept_seconds: How long a stream is kept after its last append, and after its end.
        subjects: Quotas of single holders of its tokens, by ``sub``.
        kept_below: The same for streams whose names begin with a text, by this text; the longest
            one counts. All streams of a workflow begin with its id and a slash.
    """

    writers: Count | None = None
    written_bytes_per_second: Count | None = None
    attempt_bytes: Count | None = None
    kept_seconds: Count | None = None
    kept_below: dict[str, Count] = {}
    subjects: dict[str, Quota] = {}

    def kept(self, name: str) -> timedelta | None:
        """Return how long a stream of this name is kept at most; ``None`` for no bound."""
        fitting = [prefix for prefix in self.kept_below if name.startswith(prefix)]
        seconds = self.kept_below[max(fitting, key=len)] if fitting else self.kept_seconds
        return None if seconds is None else timedelta(seconds=seconds)


class Quotas(BaseModel):
    """All quotas of a process.

    Attributes:
        tenant: Of each tenant.
        tenants: Of single tenants; what they leave out is as for each tenant.
        subject: Of each holder of a token, by tenant and ``sub``, unless its tenant says more.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tenant: TenantQuota = TenantQuota()
    tenants: dict[str, TenantQuota] = {}
    subject: Quota = Quota()

    def of_tenant(self, tenant: str) -> TenantQuota:
        """Return the quota of a tenant."""
        return _chosen(self.tenant, self.tenants, tenant)

    def of_subject(self, tenant: str, subject: str) -> Quota:
        """Return the quota of a holder of tokens of a tenant."""
        return _chosen(self.subject, self.of_tenant(tenant).subjects, subject)


NO_QUOTAS = Quotas()
QuotaT = TypeVar("QuotaT", bound=Quota)


def load_quotas(settings: Settings) -> Quotas:
    """Return the quotas of the file that ``STREAMQ_QUOTAS`` names; without one, no bounds.

    The file is read again after it was replaced.

    Raises:
        ConfigurationError: It cannot be read, or says something that is no quota.
    """
    path = settings.quotas
    if path is None:
        return NO_QUOTAS
    try:
        changed = path.stat().st_mtime_ns
    except OSError as exc:
        raise _unreadable(path, exc) from None
    return _read(path, changed)


@lru_cache(maxsize=16)
def _read(path: Path, _changed: int) -> Quotas:
    where = f"the file of quotas {str(path)!r}"
    try:
        document = tomllib.loads(path.read_text("utf-8-sig"))
    except OSError as exc:
        raise _unreadable(path, exc) from None
    except (ValueError, RecursionError) as exc:
        raise ConfigurationError(f"{where} is no TOML: {exc}") from None
    try:
        return Quotas.model_validate(document)
    except ValidationError as exc:
        problems = [
            f"{'.'.join(map(str, error['loc']))}: {error['msg']} "
            f"(value seen: {seen_value(error['input'])})"
            for error in exc.errors(include_url=False, include_context=False)
        ]
        raise ConfigurationError(
            f"{where} has {'; '.join(problems)}. It has the tables [tenant], [tenants.NAME], "
            "[tenants.NAME.subjects.SUB] and [subject] with numbers above 0"
        ) from None


def _unreadable(path: Path, exc: OSError) -> ConfigurationError:
    return ConfigurationError(
        f"the file of quotas {str(path)!r} (STREAMQ_QUOTAS) cannot be read: {exc.strerror}"
    )


def _chosen(usual: QuotaT, single: Mapping[str, QuotaT], name: str) -> QuotaT:
    own = single.get(name)
    return (
        usual
        if own is None
        else usual.model_copy(update={field: getattr(own, field) for field in own.model_fields_set})
    )
