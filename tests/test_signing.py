"""Signed values, against Tornado's own both ways."""

from __future__ import annotations

import base64
import hmac
import random
import time

from tornado import web as tornado_web
from twisted.trial.unittest import SynchronousTestCase

from cycloneish import signing
from cycloneish.signing import create_signed_value, decode_signed_value, get_signature_key_version

SECRET = "It's a secret to everybody"
KEYS = {0: "zero", 1: b"one", 7: "seven"}
NOW = 1300000000
VALUES = ["value", "", b"\xe9\x00", "a|b", "x" * 5000, "2|1:0", "ü"]


def clock():
    return NOW


class TornadoTest(SynchronousTestCase):
    def test_ours_is_byte_for_byte_tornados(self):
        for value in VALUES:
            for version in (1, 2):
                self.assertEqual(
                    create_signed_value(SECRET, "key", value, version, clock),
                    tornado_web.create_signed_value(SECRET, "key", value, version, clock),
                )
            self.assertEqual(
                create_signed_value(KEYS, "ü", value, clock=clock, key_version=7),
                tornado_web.create_signed_value(KEYS, "ü".encode(), value, clock=clock, key_version=7),
            )

    def test_tornado_reads_ours_and_we_read_tornados(self):
        for value in VALUES:
            expected = value.encode() if isinstance(value, str) else value
            for version in (1, 2):
                ours = create_signed_value(SECRET, "key", value, version, clock)
                theirs = tornado_web.create_signed_value(SECRET, "key", value, version, clock)
                self.assertEqual(tornado_web.decode_signed_value(SECRET, "key", ours, clock=clock), expected)
                self.assertEqual(decode_signed_value(SECRET, "key", theirs, clock=clock), expected)

    def test_mutations_are_judged_as_by_tornado(self):
        chance = random.Random(1)
        signed = create_signed_value(KEYS, "key", "some value", clock=clock, key_version=1)
        for _ in range(3000):
            mutated = bytearray(signed)
            for _ in range(chance.randint(1, 3)):
                position = chance.randrange(len(mutated))
                mutated[position] = chance.choice(b"0123456789|:ab=\xff")
            value = bytes(mutated)
            self.assertEqual(
                decode_signed_value(KEYS, "key", value, clock=clock),
                tornado_web.decode_signed_value(KEYS, "key", value, clock=clock, min_version=2),
                value,
            )


class SignedValueTest(SynchronousTestCase):
    def test_known_values(self):
        self.assertEqual(
            create_signed_value(SECRET, "key", "value", 1, clock),
            b"dmFsdWU=|1300000000|31c934969f53e48164c50768b40cbd7e2daaaa4f",
        )
        self.assertEqual(
            create_signed_value(SECRET, "key", "value", clock=clock),
            b"2|1:0|10:1300000000|3:key|8:dmFsdWU=|"
            b"3d4e60b996ff9c5d5788e333a0cba6f238a22c6c0f94788870e1a9ecd482e152",
        )

    def test_round_trip_with_the_clock_on_the_wall(self):
        signed = create_signed_value(SECRET, "key", "value")
        self.assertEqual(decode_signed_value(SECRET, "key", signed.decode()), b"value")

    def test_value_moved_to_another_name(self):
        self.patch(signing.gen_log, "disabled", True)
        for version in (1, 2):
            signed = create_signed_value(SECRET, "key", "value", version, clock)
            self.assertIsNone(decode_signed_value(SECRET, "yek", signed, clock=clock))

    def test_expired(self):
        self.patch(signing.gen_log, "disabled", True)
        for version in (1, 2):
            signed = create_signed_value(SECRET, "key", "value", version, lambda: NOW - 2 * 86400)
            decode = lambda days, s=signed: decode_signed_value(SECRET, "key", s, days, clock)  # noqa: E731
            self.assertEqual(decode(2.1), b"value")
            self.assertIsNone(decode(1.9))

    def test_digits_moved_to_the_timestamp_of_version_1(self):
        # The signature of version 1 covers value and timestamp without anything between them.
        signed = create_signed_value(SECRET, "key", base64.b64decode(b"1234"), 1, clock)
        value, timestamp, signature = signed.split(b"|")
        self.assertTrue(value.isdigit())
        forged = b"|".join([b"", value + timestamp, signature])
        with self.assertLogs(signing.gen_log, "WARNING") as logs:
            self.assertIsNone(decode_signed_value(SECRET, "key", forged, clock=clock))
        self.assertIn("Cookie timestamp in future", logs.output[0])

    def test_timestamp_in_the_future(self):
        later = create_signed_value(SECRET, "key", "value", 1, lambda: NOW + 32 * 86400)
        with self.assertLogs(signing.gen_log, "WARNING") as logs:
            self.assertIsNone(decode_signed_value(SECRET, "key", later, clock=clock))
        self.assertIn("Cookie timestamp in future", logs.output[0])
        soon = create_signed_value(SECRET, "key", "value", 1, lambda: NOW + 30 * 86400)
        self.assertEqual(decode_signed_value(SECRET, "key", soon, clock=clock), b"value")

    def test_timestamp_of_version_1_that_is_signed_and_strange(self):
        self.patch(signing.gen_log, "disabled", True)
        for timestamp in (b"abc", b"-1", b"0%d" % NOW, b"1" * 5000, b"", "\uff11".encode(), b" 1300000000"):
            encoded = base64.b64encode(b"value")
            signature = signing._create_signature_v1(SECRET, "key", encoded, timestamp)
            value = b"|".join([encoded, timestamp, signature])
            self.assertIsNone(decode_signed_value(SECRET, "key", value, clock=clock))

    def test_fields_of_version_2_that_are_signed_and_strange(self):
        good = (b"0", b"%d" % NOW, b"key", base64.b64encode(b"value"))

        def decode(*fields):
            text = b"2|" + b"".join(b"%d:%s|" % (len(f), f) for f in fields)
            return decode_signed_value(
                SECRET, "key", text + signing._create_signature_v2(SECRET, text), clock=clock
            )

        self.assertEqual(decode(*good), b"value")
        for position, field in [(0, b"x"), (0, b"-1"), (1, b"abc"), (1, b"9" * 5000), (2, b"kez"), (3, b"a")]:
            fields = list(good)
            fields[position] = field
            self.assertIsNone(decode(*fields))

    def test_malformed_values_are_none_and_never_raise(self):
        self.patch(signing.gen_log, "disabled", True)
        for value in [
            None,
            "",
            b"",
            "x",
            "|",
            "||",
            "|||",
            "2|",
            "2|1:0",
            "2|1:0|",
            "2|1:0|10:1300000000|3:key|8:dmFsdWU=|",
            "2|1:0|10:1300000000|3:key|9:dmFsdWU=|aa",
            "2|-1:0|10:1300000000|3:key|8:dmFsdWU=|aa",
            "2|1" + "0" * 5000 + ":0|",
            "2|\uff11:0|10:1300000000|3:key|8:dmFsdWU=|aa",
            "3|1:0|10:1300000000|3:key|8:dmFsdWU=|aa",
            "999|",
            "9" * 5000 + "|",
            "\ud800",
            b"\xff\xfe|1|2",
            "ü|ü|ü",
        ]:
            for secret in (SECRET, KEYS):
                self.assertIsNone(decode_signed_value(secret, "key", value, clock=clock), value)

    def test_malformed_values_have_no_key_version(self):
        for value in [
            "",
            "x",
            "2|",
            "2|1:0|",
            "2|1:x|1:1|1:1|1:1|",
            "9" * 5000 + "|",
            "\ud800",
            b"\xff|",
            "3|1:0|",
        ]:
            self.assertIsNone(get_signature_key_version(value), value)

    def test_min_version(self):
        signed = create_signed_value(SECRET, "key", "value", 1, clock)
        self.assertIsNone(decode_signed_value(SECRET, "key", signed, clock=clock, min_version=2))
        self.assertRaises(ValueError, decode_signed_value, SECRET, "key", signed, min_version=3)

    def test_key_rotation(self):
        signed = create_signed_value(KEYS, "key", "value", clock=clock, key_version=1)
        self.assertEqual(get_signature_key_version(signed), 1)
        self.assertEqual(decode_signed_value(KEYS, "key", signed, clock=clock), b"value")
        self.assertIsNone(decode_signed_value({0: "zero"}, "key", signed, clock=clock))
        self.assertIsNone(decode_signed_value({1: "other"}, "key", signed, clock=clock))
        self.assertEqual(decode_signed_value(b"one", "key", signed, clock=clock), b"value")

    def test_several_keys_and_version_1(self):
        signed = create_signed_value(SECRET, "key", "value", 1, clock)
        self.assertIsNone(decode_signed_value(KEYS, "key", signed, clock=clock))
        self.assertRaises(ValueError, create_signed_value, KEYS, "key", "value", 1)

    def test_misuse_is_reported(self):
        self.assertRaises(ValueError, create_signed_value, KEYS, "key", "value")
        self.assertRaises(KeyError, create_signed_value, KEYS, "key", "value", key_version=5)
        self.assertRaises(ValueError, create_signed_value, SECRET, "key", "value", 3)

    def test_key_version_of_what_has_none(self):
        self.assertIsNone(get_signature_key_version(create_signed_value(SECRET, "key", "value", 1)))
        self.assertEqual(get_signature_key_version(create_signed_value(SECRET, "key", "value")), 0)
        self.assertIsNone(get_signature_key_version("2|5:aaaaa|1:1|1:1|1:1|"))

    def test_signatures_are_compared_in_constant_time(self):
        compared = []

        def compare(a, b):
            compared.append((a, b))
            return hmac_compare(a, b)

        hmac_compare = hmac.compare_digest
        self.patch(signing.hmac, "compare_digest", compare)
        for version in (1, 2):
            signed = create_signed_value(SECRET, "key", "value", version, clock)
            decode_signed_value(SECRET, "key", signed, clock=clock)
        self.assertEqual([len(a) for a, _ in compared], [40, 64])

    def test_values_are_not_logged(self):
        forged = create_signed_value("other", "key", "private", 1, clock)
        old = create_signed_value(SECRET, "key", "private", 1, lambda: 1)
        with self.assertLogs(signing.gen_log, "WARNING") as logs:
            decode_signed_value(SECRET, "key", forged, clock=clock)
            decode_signed_value(SECRET, "key", old, clock=clock)
        self.assertIn("Invalid cookie signature", logs.output[0])
        self.assertIn("Expired cookie", logs.output[1])
        self.assertNotIn(base64.b64encode(b"private").decode(), "".join(logs.output))

    def test_long_values_take_linear_time(self):
        def spent(size):
            value = b"2|1:0|" + b"9:" * size
            start = time.perf_counter()
            for _ in range(20):
                decode_signed_value(SECRET, "key", value)
            return time.perf_counter() - start

        self.assertLess(spent(200_000), 20 * spent(20_000) + 0.05)
