"""No password in what is raised."""

from __future__ import annotations

import traceback

from twisted.trial.unittest import SynchronousTestCase

from cycloneish.db.opening import connect_settings


class SecretsTest(SynchronousTestCase):
    def test_a_wrong_dsn_is_not_shown_in_the_traceback_either(self) -> None:
        for dsn in ("postgresql://shop:hunter2@[db/shop", "postgresql://shop:hunter2@db:5432x y/%zz"):
            error = self.assertRaises(ValueError, connect_settings, dsn)
            self.assertNotIn("hunter2", "".join(traceback.format_exception(error)))
