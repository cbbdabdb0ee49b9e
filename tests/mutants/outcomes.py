"""Names the outcomes of a check, and of a mutant.

Design: docs/design/testing.md.
"""

PASSED = "passed"
SKIPPED = "skipped"
CAUGHT = "caught"
"""Of a check: it failed. Of a mutant: a check failed."""
HUNG = "hung"
"""It did not end in time, crashed, or took all memory; which is no check that fails."""
SURVIVED = "survived"
UNREACHED = "unreached"
"""Of a mutant: it survives, since no check executes its lines."""
EQUIVALENT = "equivalent"
BROKEN = "broken"
"""Of a mutant: it cannot be imported, so it counts as if it had not been drawn."""
