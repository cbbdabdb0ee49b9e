"""Counts latencies in a histogram that travels between processes."""

from __future__ import annotations

from array import array

from hdrh.histogram import HdrHistogram

_LOWEST_US, _HIGHEST_US, _DIGITS = 1, 600_000_000, 3


class Latencies:
    """Latencies in microseconds; they are counted when they are asked for, not when added."""

    def __init__(self, encoded: str | None = None) -> None:
        self._histogram = HdrHistogram(_LOWEST_US, _HIGHEST_US, _DIGITS)
        self._added = array("q")
        self.add = self._added.append
        """Add a latency in microseconds; it costs next to nothing while something is measured."""
        if encoded is not None:
            self._histogram.decode_and_add(encoded)

    def percentile_ms(self, percentile: float) -> float:
        """Return a percentile, 0 to 100, in milliseconds; 0 if there is none."""
        return float(self._counted().get_value_at_percentile(percentile)) / 1e3

    def encode(self) -> str:
        """Return the text that the constructor takes."""
        encoded: bytes = self._counted().encode()
        return encoded.decode()

    def _counted(self) -> HdrHistogram:
        for value in self._added:
            self._histogram.record_value(min(max(value, _LOWEST_US), _HIGHEST_US))
        del self._added[:]
        return self._histogram
