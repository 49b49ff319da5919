"""The table: wrong inputs of all kinds, and what is said of each."""

from __future__ import annotations

from .configurations import COMMAND_LINES, CONFIGURATIONS
from .datasets import DATASETS
from .runs import RUNS
from .sources import SOURCES

TABLE = (*CONFIGURATIONS, *COMMAND_LINES, *DATASETS, *RUNS, *SOURCES)
