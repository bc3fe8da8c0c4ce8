"""``python -m tests.faults``: every fault in full, figures as JSON; status 1 where a bound does not hold."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from cycloneish.db.cluster import Cluster
from tests.db.support import FAST, fresh_database

from . import postgres

KILLS, CANCELS, REQUESTS = 20, 1000, 1000


async def run(reactor: Any) -> None:
    directory = tempfile.mkdtemp(prefix="cycloneish-faults-")
    os.chmod(directory, 0o711)
    cluster = Cluster(directory, settings=FAST)
    try:
        killed = await postgres.kill_under_load(reactor, cluster, cluster.start(), KILLS)
    finally:
        cluster.stop()
        shutil.rmtree(directory, ignore_errors=True)
    cancelled = await postgres.cancel_running(fresh_database(), CANCELS)
    beside = await postgres.requests_beside_a_sleeper(reactor, fresh_database(), REQUESTS)
    print(json.dumps([vars(report) for report in (killed, cancelled, beside)], indent=1))
    bounds = {
        "an acknowledged write is missing": killed.missing,
        "half a transaction is there": killed.half_transactions,
        "a slot of the pool leaked": killed.leaked_slots,
        "a descriptor leaked": killed.leaked_descriptors,
        "a backend leaked": killed.backends,
        "a request took too long": killed.longest_request > postgres.LONGEST_REQUEST,
        "the service was not back within 2 s": max(killed.back_after) > 2.0,
        "a cancelled query ended otherwise": cancelled.other_outcomes,
        "a backend is busy after its query was cancelled": cancelled.busy_backends,
        "a cancelled query cost its slot": cancelled.lost_slots,
        "p99 beside a sleeping query is not under 50 ms": beside.p99 >= 50,
        "requests did not run beside the sleeper": beside.during_sleep != REQUESTS,
    }
    broken = [text for text, found in bounds.items() if found]
    for text in broken:
        print(f"BROKEN: {text}", file=sys.stderr)
    if broken:
        raise SystemExit(1)


react(lambda reactor: Deferred.fromCoroutine(run(reactor)))
