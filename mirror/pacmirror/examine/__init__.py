"""Examination of what is between this machine and a source: step by step, each bounded in time, for `pacball doctor`.

Nothing is believed that a source says, and nothing is changed anywhere. What a step needs of those before it decides whether it
is made at all: where no name is known there is nothing to connect to.
"""

from pacmirror.examine.examination import Examination, examine_source
from pacmirror.examine.speed import measure_speed

__all__ = ["Examination", "examine_source", "measure_speed"]
