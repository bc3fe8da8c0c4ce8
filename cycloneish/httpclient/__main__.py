"""``python -m cycloneish.httpclient``."""

from __future__ import annotations

from cycloneish.httpclient.command import main

if __name__ == "__main__":
    main()
