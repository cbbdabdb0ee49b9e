"""Measures contenders side by side under a steady load, without knowing any of them.

A scenario brings contenders: a producer and a reader each. This package does the rest.

* ``_load``: how many streams, how many chunks, and the moments for which they are planned.
* ``_generator``: hands the chunks out at their moments, however slow the contender is (open loop).
* ``_arrivals``: takes what arrives; checks it for loss, repeats and order; latencies.
* ``_roles``: runs a producer or a reader in its own process, and measures that process.
* ``_contenders``: starts the processes of a contender, and judges the run.
* ``_rounds``: repeats the runs of all contenders in turn.
* ``_report``: ratios first, medians and spread; the table or JSON.
* ``_machine``: the machine, and how busy it is.
* ``_checkouts``: makes an older version of the sources a contender.

Design: docs/design/measuring.md.
"""

from ._arrivals import Arrivals
from ._checkouts import checkout
from ._contenders import Contender, Run, Stage
from ._generator import Generator
from ._load import Load
from ._machine import preamble
from ._report import Measure, report
from ._roles import Task, play
from ._rounds import Outcome, repeat

__all__ = [
    "Arrivals",
    "Contender",
    "Generator",
    "Load",
    "Measure",
    "Outcome",
    "Run",
    "Stage",
    "Task",
    "checkout",
    "play",
    "preamble",
    "repeat",
    "report",
]
