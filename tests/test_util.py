"""Tests of cycloneish.util."""

from __future__ import annotations

import datetime
import gzip
import random
import re
import sys
import time
import warnings
import zlib
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

import cycloneish.escape
from cycloneish import util
from cycloneish.util import (
    ArgReplacer,
    Configurable,
    GzipDecompressor,
    ObjectDict,
    _websocket_mask,
    errno_from_exception,
    exec_in,
    import_object,
    raise_exc_info,
    re_unescape,
    timedelta_to_seconds,
)


class ObjectDictTests(SynchronousTestCase):
    def test_keys_are_attributes(self) -> None:
        d = ObjectDict(a=1)
        d.b = 2
        self.assertEqual((d.a, d["b"]), (1, 2))
        self.assertFalse(hasattr(d, "c"))
        self.assertEqual(getattr(d, "c", 3), 3)


class GzipDecompressorTests(SynchronousTestCase):
    def inflate(self, data: bytes, read_size: int, max_length: int) -> bytes:
        gunzip = GzipDecompressor()
        result = b""
        for start in range(0, len(data), read_size):
            chunk = data[start : start + read_size]
            while chunk:
                piece = gunzip.decompress(chunk, max_length)
                self.assertLessEqual(len(piece), max_length)
                self.assertTrue(piece or len(gunzip.unconsumed_tail) < len(chunk), "no progress")
                result += piece
                chunk = gunzip.unconsumed_tail
        self.assertEqual(gunzip.flush(), b"")
        return result

    def test_members_in_any_pieces(self) -> None:
        noise = random.Random(0).randbytes(6000)
        streams = [noise, b"", b"hello " * 3000, b"x"]
        data = b"".join(map(gzip.compress, streams))
        for read_size in (1, 13, 4096, 4097, len(data)):
            for max_length in (1, 100, 6000, 100_000):
                self.assertEqual(self.inflate(data, read_size, max_length), b"".join(streams))

    def test_bomb_gives_only_what_was_asked_for(self) -> None:
        bomb = gzip.compress(bytes(50_000_000))
        gunzip = GzipDecompressor()
        self.assertEqual(len(gunzip.decompress(bomb, 1000)), 1000)
        self.assertTrue(gunzip.unconsumed_tail)
        with self.assertRaises(ValueError):
            gunzip.flush()

    def test_empty_stream_is_valid(self) -> None:
        gunzip = GzipDecompressor()
        self.assertEqual(gunzip.decompress(b"", 10), b"")
        self.assertEqual(gunzip.flush(), b"")

    def test_trailing_garbage_is_an_error(self) -> None:
        for garbage in (b"\0", b"\r\n", b"garbage", b"\x1f\0"):
            for read_size in (1, 1000):
                with self.assertRaises(zlib.error):
                    self.inflate(gzip.compress(b"hello") + garbage, read_size, 100)

    def test_truncated_stream_is_an_error(self) -> None:
        data = gzip.compress(b"hello" * 100)
        for end in (1, 5, len(data) // 2, len(data) - 1):
            with self.assertRaises(zlib.error):
                self.inflate(data[:end], 100, 100)

    def test_damaged_stream_is_an_error(self) -> None:
        data = bytearray(gzip.compress(b"hello" * 100))
        data[-5] ^= 1
        with self.assertRaises(zlib.error):
            self.inflate(bytes(data), 100, 1000)
        with self.assertRaises(zlib.error):
            GzipDecompressor().decompress(b"<html>", 10)

    def test_no_limit_is_deprecated_and_reads_all(self) -> None:
        data = gzip.compress(b"hello") + gzip.compress(b" world")
        gunzip = GzipDecompressor()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            self.assertEqual(gunzip.decompress(data), b"hello world")
        self.assertEqual([w.category for w in caught], [DeprecationWarning])

    def test_ten_thousand_members_take_linear_time(self) -> None:
        def measure(members: int) -> float:
            data = gzip.compress(b"") * members
            best = 10.0
            for _ in range(3):
                start = time.process_time()
                self.assertEqual(GzipDecompressor().decompress(data, 100), b"")
                best = min(best, time.process_time() - start)
            return best

        self.assertLess(measure(10_000), 3 * measure(5000))


class Shape(Configurable):
    @classmethod
    def configurable_base(cls) -> type[Configurable]:
        return Shape

    @classmethod
    def configurable_default(cls) -> type[Configurable]:
        return Circle


class Circle(Shape):
    def initialize(self, first: Any = None, size: Any = None) -> None:
        self.first = first
        self.size = size


class Square(Circle):
    pass


class Polygon(Shape):
    @classmethod
    def configurable_base(cls) -> type[Configurable]:
        return Polygon

    @classmethod
    def configurable_default(cls) -> type[Configurable]:
        return Triangle


class Triangle(Polygon):
    def initialize(self, size: Any = None) -> None:
        self.size = size


class Bare(Shape):
    pass


class ConfigurableTests(SynchronousTestCase):
    def setUp(self) -> None:
        for cls in (Shape, Polygon):
            self.addCleanup(cls._restore_configuration, cls._save_configuration())

    def test_default(self) -> None:
        shape = Shape(1, size=2)
        self.assertIs(type(shape), Circle)
        self.assertEqual((shape.first, shape.size), (1, 2))
        self.assertIs(Shape.configured_class(), Circle)

    def test_configured_by_class_and_by_name(self) -> None:
        Shape.configure(Square, size=5)
        self.assertIs(type(Shape()), Square)
        self.assertEqual(Shape().size, 5)
        self.assertEqual(Shape(size=6).size, 6)
        self.assertIsNone(Circle().size)
        Shape.configure(f"{__name__}.Circle")
        self.assertIs(type(Shape()), Circle)
        self.assertIsNone(Shape().size)

    def test_saved_and_restored(self) -> None:
        saved = Shape._save_configuration()
        Shape.configure(Square, size=5)
        Shape._restore_configuration(saved)
        self.assertIs(type(Shape()), Circle)

    def test_nested_hierarchies_choose_for_themselves(self) -> None:
        Shape.configure(Polygon, size=3)
        self.assertIs(type(Shape()), Triangle)
        self.assertEqual(Shape().size, 3)
        self.assertIsNone(Polygon().size)

    def test_wrong_class_is_refused(self) -> None:
        for wrong in (int, "builtins.len"):
            with self.assertRaises(ValueError):
                Shape.configure(wrong)  # type: ignore[arg-type]

    def test_base_must_say_what_it_is(self) -> None:
        with self.assertRaises(NotImplementedError):
            Configurable()
        with self.assertRaises(NotImplementedError):
            Configurable.configurable_default()

    def test_initialize_is_optional(self) -> None:
        self.assertIsInstance(Bare(), Bare)


class ArgReplacerTests(SynchronousTestCase):
    def setUp(self) -> None:
        def function(x: Any, y: Any, callback: Any = None, z: Any = None, *, named: Any = None) -> None:
            pass

        self.function = function
        self.replacer = ArgReplacer(function, "callback")

    def test_positional(self) -> None:
        args, kwargs = (1, 2, "old", 3), {}
        self.assertEqual(self.replacer.get_old_value(args, kwargs), "old")
        self.assertEqual(self.replacer.replace("new", args, kwargs), ("old", [1, 2, "new", 3], {}))

    def test_keyword(self) -> None:
        kwargs = {"y": 2, "callback": "old"}
        self.assertEqual(self.replacer.get_old_value((1,), kwargs), "old")
        self.assertEqual(
            self.replacer.replace("new", (1,), kwargs), ("old", (1,), {"y": 2, "callback": "new"})
        )

    def test_absent(self) -> None:
        self.assertEqual(self.replacer.get_old_value((1, 2), {}, "default"), "default")
        self.assertEqual(self.replacer.replace("new", (1, 2), {}), (None, (1, 2), {"callback": "new"}))

    def test_keyword_only(self) -> None:
        replacer = ArgReplacer(self.function, "named")
        self.assertIsNone(replacer.arg_pos)
        self.assertEqual(replacer.replace(1, (), {}), (None, (), {"named": 1}))


class ImportAndExecTests(SynchronousTestCase):
    def test_import_modules_and_names(self) -> None:
        self.assertIs(import_object("cycloneish"), cycloneish)
        self.assertIs(import_object("cycloneish.escape"), cycloneish.escape)
        self.assertIs(import_object("cycloneish.escape.utf8"), cycloneish.escape.utf8)

    def test_missing_names_are_import_errors(self) -> None:
        for name in (
            "cycloneish.nowhere",
            "cycloneish.escape.nothing",
            "no_such_package.x",
            "no_such_package",
        ):
            with self.assertRaises(ImportError):
                import_object(name)

    def test_exec_in_runs_in_the_namespaces_given(self) -> None:
        names: dict[str, Any] = {}
        exec_in("x = 1\ndef f(a: int): pass", names)
        self.assertEqual(names["x"], 1)
        # This module's future import would make it the string "int".
        self.assertIs(names["f"].__annotations__["a"], int)
        local: dict[str, Any] = {}
        exec_in(compile("y = x", "f", "exec"), names, local)
        self.assertEqual(local, {"y": 1})


class ErrorTests(SynchronousTestCase):
    def test_raise_exc_info_keeps_object_and_traceback(self) -> None:
        class Two(Exception):
            def __init__(self, a: int, b: int) -> None:
                super().__init__()

        try:
            raise Two(1, 2)
        except Two:
            info = sys.exc_info()
        with self.assertRaises(Two) as caught:
            raise_exc_info(info)
        self.assertIs(caught.exception, info[1])
        with self.assertRaises(TypeError):
            raise_exc_info((None, None, None))

    def test_errno(self) -> None:
        self.assertEqual(errno_from_exception(OSError(2, "x")), 2)
        self.assertEqual(errno_from_exception(ValueError(7)), 7)
        self.assertIsNone(errno_from_exception(ValueError()))


class SmallTests(SynchronousTestCase):
    def test_re_unescape_undoes_re_escape(self) -> None:
        for text in ("/favicon.ico", "a-b_c\n!$@#%; é", "\\"):
            self.assertEqual(re_unescape(re.escape(text)), text)

    def test_re_unescape_refuses_character_classes(self) -> None:
        for text in (r"\d", r"\Z", r"\1"):
            with self.assertRaises(ValueError):
                re_unescape(text)

    def test_timedelta(self) -> None:
        self.assertEqual(timedelta_to_seconds(datetime.timedelta(minutes=1.5)), 90.0)

    def test_aliases(self) -> None:
        self.assertEqual((util.bytes_type, util.unicode_type, util.basestring_type), (bytes, str, str))
        self.assertIs(util.TimeoutError, TimeoutError)
        self.assertFalse(util.is_finalizing())

    def test_websocket_mask(self) -> None:
        mask = b"\x01\x02\x80\xff"
        for size in (0, 1, 3, 4, 5, 1000, 1001):
            data = random.Random(size).randbytes(size)
            expected = bytes(byte ^ mask[i % 4] for i, byte in enumerate(data))
            self.assertEqual(_websocket_mask(mask, data), expected)
        with self.assertRaises(ValueError):
            _websocket_mask(b"abc", b"x")
