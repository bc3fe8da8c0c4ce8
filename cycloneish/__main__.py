"""``python -m cycloneish`` is the ``cycloneish`` command, also where no scripts folder is on the path."""

from __future__ import annotations

import sys

from cycloneish.cli import main

if __name__ == "__main__":
    sys.exit(main())
