"""Tests for :class:`~cycloneish.testing.ExpectLog`."""

from __future__ import annotations

import logging
import warnings

from twisted.trial.unittest import SynchronousTestCase

from cycloneish.testing import ExpectLog


class ExpectLogTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.logger = logging.getLogger("tests.expect_log")
        self.records: list[str] = []
        handler = logging.Handler()
        handler.emit = lambda record: self.records.append(record.getMessage())  # type: ignore[method-assign]
        self.logger.addHandler(handler)
        self.logger.propagate = False
        self.addCleanup(self.logger.removeHandler, handler)

    def test_matching_messages_go_no_further(self) -> None:
        with ExpectLog(self.logger, "expected [0-9]+") as log:
            self.logger.warning("expected %d", 1)
            self.logger.warning("other expected 2")
        self.logger.warning("expected 3")
        self.assertEqual(self.records, ["other expected 2", "expected 3"])
        self.assertEqual((log.matched, log.logged_stack), (1, False))

    def test_the_logger_may_be_a_name(self) -> None:
        with ExpectLog("tests.expect_log", "x"):
            self.logger.error("x")

    def test_a_stack_is_noted(self) -> None:
        with ExpectLog(self.logger, "x") as log:
            try:
                raise LookupError
            except LookupError:
                self.logger.exception("x")
        self.assertTrue(log.logged_stack)

    def test_without_a_match_it_says_what_came_instead(self) -> None:
        with self.assertRaises(AssertionError) as caught, ExpectLog(self.logger, "x"):
            for number in range(12):
                self.logger.warning("other %d", number)
        text = str(caught.exception)
        self.assertIn("did not get expected log message: nothing on 'tests.expect_log' matched 'x'", text)
        self.assertIn("\n  other 9\n  and 2 more", text)
        with self.assertRaises(AssertionError) as caught, ExpectLog(self.logger, "x"):
            pass
        self.assertIn("nothing else came", str(caught.exception))

    def test_not_required(self) -> None:
        with ExpectLog(self.logger, "x", required=False):
            pass

    def test_an_exception_of_the_block_goes_first(self) -> None:
        with self.assertRaises(LookupError), ExpectLog(self.logger, "x"):
            raise LookupError
        self.assertEqual(self.logger.filters, [])

    def test_a_level_lets_the_message_through_for_as_long(self) -> None:
        self.logger.setLevel(logging.ERROR)
        self.addCleanup(self.logger.setLevel, logging.NOTSET)
        with ExpectLog(self.logger, "x", level=logging.INFO) as log:
            self.logger.info("x")
        self.assertEqual((log.matched, self.logger.level), (1, logging.ERROR))

    def test_another_level_does_not_count(self) -> None:
        with (
            ExpectLog("cycloneish.application", "Expected log message 'x' came with level ERROR, not INFO"),
            self.assertRaises(AssertionError),
            ExpectLog(self.logger, "x", level=logging.INFO),
        ):
            self.logger.error("x")

    def test_low_levels_want_to_be_named(self) -> None:
        self.logger.setLevel(logging.INFO)
        self.addCleanup(self.logger.setLevel, logging.NOTSET)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with ExpectLog(self.logger, "x") as log:
                self.logger.info("x")
        self.assertEqual([one.category for one in caught], [DeprecationWarning])
        self.assertEqual(log.deprecated_level_matched, 1)
