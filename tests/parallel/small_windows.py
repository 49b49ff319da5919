"""``python small_windows.py BYTES [hpcdd's arguments]``: hpcdd with windows of so many bytes of whole images."""

from __future__ import annotations

import sys

from hpcdd import cli
from hpcdd.data import order, reading

if __name__ == "__main__":
    order.WINDOW_BYTES = int(sys.argv[1])
    reading._GAP_BYTES = 0
    sys.exit(cli.main(sys.argv[2:]))
