"""Runs a worker for the host workflow: ``python -m streamq_workflow_streams``."""

from __future__ import annotations

import sys

from .host._command import main

if __name__ == "__main__":
    sys.exit(main())
