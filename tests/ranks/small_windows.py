"""``python small_windows.py BYTES [hpcdd's arguments]``: hpcdd with windows of that many bytes of whole images."""

from __future__ import annotations

import sys

from hpcdd.cli import main
from hpcdd.data import reading, sample_order

if __name__ == "__main__":
    sample_order.WINDOW_BYTES = int(sys.argv[1])
    reading._GAP_BYTES = 0
    sys.exit(main.main(sys.argv[2:]))
