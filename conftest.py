"""For every test of the workspace."""

import signal

pytest_plugins = ["streamq.testing.plugin", "pytester"]

# A job that a shell runs in the background ignores Ctrl-C, and so would every process that the
# tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
