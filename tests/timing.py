"""How the time of a function grows with its input, for the tests that say it is linear."""

from __future__ import annotations

import gc
import time


def ratio(function, small, large):
    """How much longer *function* takes for *large* than for *small*, at best of some tries."""

    def best(size):
        spent = []
        for _ in range(5):
            start = time.perf_counter()
            function(size)
            spent.append(time.perf_counter() - start)
        return min(spent)

    gc.collect()
    return best(large) / best(small)
