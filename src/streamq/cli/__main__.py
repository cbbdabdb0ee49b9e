"""``python -m streamq.cli``: the same as ``streamq``."""

import sys

from . import main

if __name__ == "__main__":
    sys.exit(main())
