"""``python -m streamq.cli``: the same as ``streamq``."""

import os
import sys

# Python puts the working directory first, where its files would stand in for any library.
if not sys.flags.safe_path and sys.path and sys.path[0] in ("", os.path.abspath(os.curdir)):
    del sys.path[0]

from . import main

if __name__ == "__main__":
    sys.exit(main())
