"""Measurements beside a bare client, in one run on one machine. Ratios count, not milliseconds."""
