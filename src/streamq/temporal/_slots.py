"""Checks that a worker has activity slots for a producer and for a reader beside it.

Design: docs/design/temporal-holding.md.
"""

from __future__ import annotations

import logging

from temporalio.worker import (
    FixedSizeSlotSupplier,
    ResourceBasedSlotSupplier,
    WorkerConfig,
    WorkerTuner,
)

FEWEST_SLOTS = 2

_logger = logging.getLogger("streamq.temporal")


def warn_of_few_slots(config: WorkerConfig) -> None:
    """Log a warning if a worker runs one activity at a time.

    Its producer then occupies the only slot, and every activity that begins to read its stream
    waits for the producer's end.
    """
    slots = _activity_slots(config)
    if slots is not None and slots < FEWEST_SLOTS:
        _logger.warning(
            "this worker runs %d activity at a time: while a streaming activity runs, no poll of "
            "its stream and no forwarder can start, so that workflows get the chunks when it has "
            "ended; give the worker more slots than activities that stream at the same time "
            "(max_concurrent_activities=%d, or its tuner); readers outside of workflows are not "
            "affected",
            slots,
            FEWEST_SLOTS,
        )


def _activity_slots(config: WorkerConfig) -> int | None:
    """Return the most activities that a worker runs at the same time; ``None`` if unknown."""
    tuner: WorkerTuner | None = config.get("tuner")
    if tuner is None:
        return config.get("max_concurrent_activities")
    # No public function of the SDK returns the supplier of a tuner.
    supplier = tuner._get_activity_task_slot_supplier()
    if isinstance(supplier, FixedSizeSlotSupplier):
        return supplier.num_slots
    if isinstance(supplier, ResourceBasedSlotSupplier):
        return supplier.slot_config.maximum_slots
    return None
