"""``python -m hpcdd``."""

import sys

from .cli import main

sys.exit(main())
