"""``python -m opsd`` is ``opsd``."""

from __future__ import annotations

import sys

from opsd.cli import main

if __name__ == "__main__":
    sys.exit(main())
