"""The faults of PostgreSQL in small; ``CYCLONEISH_FAULTS=20`` makes them as many as the full program does."""

from __future__ import annotations

import os
import shutil
import tempfile

from twisted.trial.unittest import TestCase

from cycloneish.db.cluster import Cluster
from tests.db.support import FAST, fresh_database

from . import postgres

ROUNDS = int(os.environ.get("CYCLONEISH_FAULTS", "3"))


class KillTests(TestCase):
    timeout = 60 + 20 * ROUNDS

    async def test_no_acknowledged_write_is_lost_and_nothing_leaks(self) -> None:
        from twisted.internet import reactor

        directory = tempfile.mkdtemp(prefix="cycloneish-faults-")
        self.addCleanup(shutil.rmtree, directory, ignore_errors=True)
        cluster = Cluster(directory, settings=FAST)
        dsn = cluster.start()
        self.addCleanup(cluster.stop)
        report = await postgres.kill_under_load(reactor, cluster, dsn, ROUNDS)
        self.assertEqual(report.kills, ROUNDS)
        self.assertGreater(report.acknowledged, 0)
        self.assertNotIn("ConnectError", report.answers)
        self.assertGreater(report.answers["ConnectionLost"] + report.answers["CommitUnknown"], 0)
        self.assertEqual((report.missing, report.half_transactions), (0, 0))
        self.assertEqual((report.leaked_slots, report.leaked_descriptors, report.backends), (0, 0, 0))
        # Twice the bound of the full program: this machine may be busy with other things.
        self.assertLess(report.longest_request, 2 * postgres.LONGEST_REQUEST)
        self.assertLess(max(report.back_after), 10.0)


class CancelTests(TestCase):
    timeout = 120

    async def test_cancelled_queries_leave_no_busy_backend_and_no_lost_slot(self) -> None:
        report = await postgres.cancel_running(fresh_database(), 100 if ROUNDS < 20 else 1000)
        self.assertEqual(report.other_outcomes, 0)
        self.assertEqual((report.busy_backends, report.lost_slots, report.lost_connections), (0, 0, 0))


class SleepTests(TestCase):
    timeout = 120

    async def test_other_requests_go_on_while_a_query_sleeps(self) -> None:
        from twisted.internet import reactor

        report = await postgres.requests_beside_a_sleeper(reactor, fresh_database(), 200)
        self.assertEqual((report.requests, report.during_sleep), (200, 200))
        self.assertGreater(report.slept, 0)
        # Whoever waited for the sleeper would have needed two seconds.
        self.assertLess(report.p99, 1500)
