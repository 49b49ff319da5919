"""``hpcdd study --dry-run``: the runs of a study, and what they will cost; nothing is trained."""

from __future__ import annotations

import argparse
import sys
from typing import TextIO

from .order import Order
from .share import posed


def run(order: Order, own: argparse.Namespace, out: TextIO = sys.stdout) -> None:
    """Prints a table of the runs."""
    for entry in posed(order.chosen, order.ranks, None):
        print(entry.run.id, entry.ranks, entry.subdomains, file=out)
