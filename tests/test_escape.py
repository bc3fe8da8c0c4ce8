"""Tests of cycloneish.escape."""

from __future__ import annotations

import html
import random
import time
import urllib.parse
from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from cycloneish import escape
from cycloneish.escape import (
    _unquote_to_bytes,
    json_decode,
    json_encode,
    linkify,
    parse_qs_bytes,
    recursive_unicode,
    squeeze,
    to_unicode,
    url_escape,
    url_unescape,
    utf8,
    xhtml_escape,
    xhtml_unescape,
)


def growth(func: Callable[[str], object], make: Callable[[int], str], size: int = 10_000) -> float:
    """How much longer ``func`` takes for input of four times the size: 4 is linear, 16 quadratic.

    Measured again when it looks bad, so that a busy machine does not count.
    """

    def seconds(text: str) -> float:
        times = []
        for _ in range(3):
            start = time.process_time()
            func(text)
            times.append(time.process_time() - start)
        return max(min(times), 1e-4)

    ratio = 100.0
    for _ in range(4):
        ratio = min(ratio, seconds(make(4 * size)) / seconds(make(size)))
        if ratio < LINEAR:
            break
    return ratio


#: Between linear and quadratic: time(2n) <= 3 time(n), twice.
LINEAR = 9


class TextTests(SynchronousTestCase):
    def test_utf8_encodes_text_and_passes_bytes_and_none(self) -> None:
        self.assertEqual(utf8("é"), b"\xc3\xa9")
        self.assertEqual(utf8(b"\xff"), b"\xff")
        self.assertIsNone(utf8(None))

    def test_to_unicode_decodes_bytes_and_passes_text_and_none(self) -> None:
        self.assertEqual(to_unicode(b"\xc3\xa9"), "é")
        self.assertEqual(to_unicode("é"), "é")
        self.assertIsNone(to_unicode(None))
        with self.assertRaises(UnicodeDecodeError):
            to_unicode(b"\xff")

    def test_other_types_are_refused_by_name(self) -> None:
        for func in (utf8, to_unicode):
            with self.assertRaises(TypeError) as caught:
                func(42)  # type: ignore[call-overload]
            self.assertIn("int", str(caught.exception))

    def test_tornado_aliases(self) -> None:
        self.assertIs(escape.native_str, to_unicode)
        self.assertIs(escape.to_basestring, to_unicode)
        self.assertIs(escape._unicode, to_unicode)

    def test_recursive_unicode(self) -> None:
        self.assertEqual(
            recursive_unicode({b"k": [b"a", (b"b", 1)], "n": None}), {"k": ["a", ("b", 1)], "n": None}
        )

    def test_squeeze(self) -> None:
        self.assertEqual(squeeze("  a \t\r\n b\x00c "), "a b c")


class HTMLTests(SynchronousTestCase):
    def test_every_dangerous_character_is_escaped(self) -> None:
        self.assertEqual(xhtml_escape('<a href="x">\'&amp;'), "&lt;a href=&quot;x&quot;&gt;&#x27;&amp;amp;")

    def test_same_as_the_standard_library(self) -> None:
        rng = random.Random(1)
        for _ in range(500):
            text = "".join(rng.choices("<>&\"'aé;", k=rng.randrange(12)))
            self.assertEqual(xhtml_escape(text), html.escape(text))
            self.assertEqual(xhtml_unescape(xhtml_escape(text)), text)

    def test_clean_text_is_not_copied(self) -> None:
        text = "nothing to do here"
        self.assertIs(xhtml_escape(text), text)

    def test_bytes_are_utf8(self) -> None:
        self.assertEqual(xhtml_escape(b"<\xc3\xa9>"), "&lt;é&gt;")
        self.assertEqual(xhtml_unescape(b"&lt;\xc3\xa9&#62;"), "<é>")


class JSONTests(SynchronousTestCase):
    def test_script_end_cannot_occur(self) -> None:
        encoded = json_encode({"a": "</script></"})
        self.assertNotIn("</", encoded)
        self.assertEqual(json_decode(encoded), {"a": "</script></"})

    def test_bytes_are_decoded_but_not_encoded(self) -> None:
        self.assertEqual(json_decode(b'"\xc3\xa9"'), "é")
        with self.assertRaises(TypeError):
            json_encode(b"x")


class URLTests(SynchronousTestCase):
    def test_escape_for_queries_and_paths(self) -> None:
        self.assertEqual(url_escape("a b/+é"), "a+b%2F%2B%C3%A9")
        self.assertEqual(url_escape("a b/+é", plus=False), "a%20b/%2B%C3%A9")
        self.assertEqual(url_escape(b"\xe9"), "%E9")

    def test_unescape_for_queries_and_paths(self) -> None:
        self.assertEqual(url_unescape("a+b%2F%2B"), "a b/+")
        self.assertEqual(url_unescape(b"a+b%2F", plus=False), "a+b/")
        self.assertEqual(url_unescape("%E9", encoding="latin-1"), "é")
        self.assertEqual(url_unescape("%E9+", encoding=None), b"\xe9 ")
        self.assertEqual(url_unescape("%E9+", encoding=None, plus=False), b"\xe9+")
        self.assertEqual(url_unescape("%E9"), "\ufffd")

    def test_unquote_equals_the_standard_library(self) -> None:
        rng = random.Random(2)
        for _ in range(5000):
            data = bytes(rng.choices(b"%%%a4Fzx=\\\n\r u\xff", k=rng.randrange(14)))
            self.assertEqual(_unquote_to_bytes(data), urllib.parse.unquote_to_bytes(data), data)

    def test_unquote_every_byte(self) -> None:
        data = bytes(range(256))
        self.assertEqual(_unquote_to_bytes(b"%" + data.hex("%").encode()), data)
        self.assertEqual(_unquote_to_bytes(b"%" + data.hex("%").upper().encode()), data)
        self.assertEqual(_unquote_to_bytes(data), data)

    def test_query_string(self) -> None:
        self.assertEqual(
            parse_qs_bytes(b"a=1&b=%41+%2B&a=2&&c&d=", keep_blank_values=True),
            {"a": [b"1", b"2"], "b": [b"A +"], "c": [b""], "d": [b""]},
        )
        self.assertEqual(parse_qs_bytes("%E9=%E9;b=1"), {"é": [b"\xe9;b=1"]})
        self.assertEqual(parse_qs_bytes(b"a=b=c&x+y=z"), {"a": [b"b=c"], "x y": [b"z"]})
        self.assertEqual(parse_qs_bytes(b"c&d="), {})
        self.assertEqual(parse_qs_bytes(""), {})

    def test_number_of_fields_is_limited(self) -> None:
        self.assertEqual(len(parse_qs_bytes(b"a=1&b=2", max_num_fields=2)), 2)
        with self.assertRaises(ValueError):
            parse_qs_bytes(b"a=1&b=2&c=3", max_num_fields=2)
        with self.assertRaises(ValueError):
            parse_qs_bytes(b"&&&", max_num_fields=3)

    def test_strict_parsing_refuses_fields_without_value(self) -> None:
        with self.assertRaises(ValueError):
            parse_qs_bytes(b"a=1&b", strict_parsing=True)
        with self.assertRaises(ValueError):
            parse_qs_bytes(b"a=1&&b=2", strict_parsing=True)


class LinkifyTests(SynchronousTestCase):
    def check(self, text: str, *links: str, **kwargs: object) -> None:
        linked = linkify(text, **kwargs)  # type: ignore[arg-type]
        found = [part.partition('"')[0] for part in linked.split('<a href="')[1:]]
        self.assertEqual(found, list(links), linked)

    def test_plain_links(self) -> None:
        self.assertEqual(
            linkify("see http://x.org/a?b=1&c=2!"),
            'see <a href="http://x.org/a?b=1&amp;c=2">http://x.org/a?b=1&amp;c=2</a>!',
        )
        self.assertEqual(linkify(b"www.x.org"), '<a href="http://www.x.org">www.x.org</a>')

    def test_punctuation_around_links(self) -> None:
        self.check(
            "(http://x.org/a_(b)), http://x.org/c_(d)_e.", "http://x.org/a_(b)", "http://x.org/c_(d)_e"
        )
        self.check("<http://x.org/>...", "http://x.org/")
        self.check("http://x.org/((((a)", "http://x.org/")
        self.check("http://", "http://")
        self.check("http:")
        self.check("www.")

    def test_only_permitted_schemes(self) -> None:
        self.check("javascript:/alert ftp://x.org http://x.org", "http://x.org")
        self.check("ftp://x.org http://x.org", "ftp://x.org", permitted_protocols=["ftp"])
        self.check("www.x.org http://x.org", "http://x.org", require_protocol=True)

    def test_dashes_before_a_scheme_stay_outside(self) -> None:
        self.assertEqual(linkify("--http://x.org"), '--<a href="http://x.org">http://x.org</a>')
        self.check("-www.x.org", "http://www.x.org")
        self.check("a-http://x.org")

    def test_markup_cannot_get_through(self) -> None:
        linked = linkify('http://x.org/"onmouseover="a <script> http://y.org/\'b')
        self.assertNotIn("<script", linked)
        self.assertNotIn('"onmouseover', linked)

    def test_extra_params(self) -> None:
        self.assertIn(
            '<a href="http://www.x.org" rel="nofollow">',
            linkify("www.x.org", extra_params=' rel="nofollow" '),
        )
        seen: list[str] = []

        def params(href: str) -> str:
            seen.append(href)
            return 'class="c"'

        self.assertIn('<a href="http://www.x.org" class="c">', linkify("www.x.org", extra_params=params))
        self.assertEqual(seen, ["http://www.x.org"])

    def test_shorten(self) -> None:
        url = "http://a-long-host.example.org/articles.html/2026/12/31"
        self.assertEqual(
            linkify(url, shorten=True),
            f'<a href="{url}" title="{url}">http://a-long-host.example.org/articles...</a>',
        )
        host = "http://" + "h" * 60 + ".org"
        self.assertIn(f">http://{'h' * 23}...</a>", linkify(host, shorten=True))
        entity = "www.example.org?aaaaaaaaaa&b" + "c" * 40
        self.assertIn(">www.example.org?aaaaaaaaaa...</a>", linkify(entity, shorten=True))

    def test_shorten_leaves_what_would_not_get_shorter(self) -> None:
        url = "http://abcdefghijklmnop.org/a/b"
        self.assertEqual(linkify(url, shorten=True), f'<a href="{url}">{url}</a>')
        url = "http://" + "h" * 30
        self.assertEqual(linkify(url, shorten=True), f'<a href="{url}">{url}</a>')
        url = "http://" + "h" * 14 + "/" + "a" * 8 + "/b"
        self.assertEqual(linkify(url, shorten=True), f'<a href="{url}">{url}</a>')

    def test_linear_time(self) -> None:
        cases = (
            "a-",
            "www.",
            "www.a(",
            "http://",
            "-",
            "www.a&",
            '"',
            "(a&",
            "a://",
            "www.a,",
            "a",
            "(",
            "&#",
        )
        for piece in cases:
            ratio = growth(linkify, lambda n, piece=piece: "www.b" + piece * n)
            self.assertLess(ratio, LINEAR, f"{piece!r} repeated")
            ratio = growth(linkify, lambda n, piece=piece: piece * n)
            self.assertLess(ratio, LINEAR, f"{piece!r} repeated, alone")


class ScaleTests(SynchronousTestCase):
    def test_percent_decoding_is_linear(self) -> None:
        for piece in ("%", "%41", "%4", "%zz", "%41a", "\\%", "%%4"):
            ratio = growth(lambda s: parse_qs_bytes("a=" + s), lambda n, piece=piece: piece * n, 30_000)
            self.assertLess(ratio, LINEAR, f"{piece!r} repeated")

    def test_forms_are_parsed_in_linear_time(self) -> None:
        for piece in ("a=%41&", "&", "a&", "=", "+"):
            ratio = growth(parse_qs_bytes, lambda n, piece=piece: piece * n)
            self.assertLess(ratio, LINEAR, f"{piece!r} repeated")

    def test_html_is_escaped_and_unescaped_in_linear_time(self) -> None:
        for func in (xhtml_escape, xhtml_unescape, squeeze, url_escape, url_unescape):
            for piece in ("&", "<", "&a;", "&#1", " \t", "%", "é"):
                ratio = growth(func, lambda n, piece=piece: piece * n)
                self.assertLess(ratio, LINEAR, f"{func.__name__}: {piece!r} repeated")
