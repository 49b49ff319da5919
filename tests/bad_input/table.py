"""The table: wrong inputs of all kinds, and what is said of each."""

from __future__ import annotations

from .command_lines import COMMAND_LINES
from .configurations import CONFIGURATIONS
from .datasets import DATASETS
from .inference import INFERENCE
from .resumes import RESUMES
from .runs import RUNS
from .sources import SOURCES
from .studies import STUDIES
from .untrusted import UNTRUSTED

TABLE = (*CONFIGURATIONS, *COMMAND_LINES, *DATASETS, *RUNS, *RESUMES, *INFERENCE, *SOURCES, *STUDIES, *UNTRUSTED)
