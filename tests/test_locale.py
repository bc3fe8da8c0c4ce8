"""Tests of cycloneish.locale."""

from __future__ import annotations

import datetime
import logging
import os
import struct
from typing import Any
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from cycloneish import locale
from cycloneish.locale import LOCALE_NAMES, CSVLocale, GettextLocale, Locale

NOW = datetime.datetime(2026, 10, 15, 12, 0, tzinfo=datetime.UTC)


class FixedClock(datetime.datetime):
    """A datetime class whose now() is NOW, a Thursday noon."""

    @classmethod
    def now(cls, tz: Any = None) -> Any:
        return NOW


def write_mo(path: str, messages: dict[str, str]) -> None:
    """Write a compiled gettext catalogue (the format is in gettext's manual, "MO Files")."""
    header = "Content-Type: text/plain; charset=UTF-8\nPlural-Forms: nplurals=2; plural=n > 1;\n"
    items = sorted({"": header, **messages}.items())
    originals, translations, data = [], [], b""
    offset = 28 + 16 * len(items)
    for table, texts in ((originals, [k for k, _ in items]), (translations, [v for _, v in items])):
        for text in texts:
            raw = text.encode()
            table.append(struct.pack("<II", len(raw), offset + len(data)))
            data += raw + b"\0"
    head = struct.pack("<7I", 0x950412DE, 0, len(items), 28, 28 + 8 * len(items), 0, 0)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(head + b"".join(originals) + b"".join(translations) + data)


class LocaleTestCase(SynchronousTestCase):
    """Leaves the loaded translations as they were."""

    def setUp(self) -> None:
        for name in ("_translations", "_supported_locales", "_use_gettext", "_default_locale"):
            self.patch(locale, name, getattr(locale, name))
        self.patch(Locale, "_cache", {})

    def directory(self, **files: str | bytes) -> str:
        path = self.mktemp()
        os.mkdir(path)
        for name, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            with open(os.path.join(path, name.replace("__", ".")), "wb") as file:
                file.write(data)
        return path


CSV = """school,école
" blank ", vide
"%(n)d message","%(n)d envoi","singular"
"%(n)d messages","%(n)d envois","plural"
odd,étrange,
worse,pire,dual
alone

"""


class CSVTests(LocaleTestCase):
    def test_translations_and_plurals(self) -> None:
        with self.assertLogs("cycloneish.general", logging.ERROR) as logs:
            locale.load_translations(self.directory(fr_FR__csv=CSV, README__txt="x"))
        self.assertIn("'dual' in", logs.output[0])
        self.assertIn("line 6", logs.output[0])
        french = locale.get("fr_FR")
        self.assertIsInstance(french, CSVLocale)
        self.assertEqual(french.translate("school"), "école")
        self.assertEqual(french.translate("blank"), "vide")
        self.assertEqual(french.translate("odd"), "étrange")
        self.assertEqual(french.translate("unheard of"), "unheard of")
        forms = [french.translate("%(n)d message", "%(n)d messages", n) for n in (0, 1, 2)]
        self.assertEqual(forms, ["%(n)d envois", "%(n)d envoi", "%(n)d envois"])
        with self.assertRaises(ValueError):
            french.translate("a", "b")

    def test_byte_order_marks(self) -> None:
        for encoding in ("utf-8", "utf-8-sig", "utf-16"):
            files = {"fr_FR__csv": "a,é".encode(encoding), "de__csv": "a,ä"}
            locale.load_translations(self.directory(**files))
            self.assertEqual(locale.get("fr_FR").translate("a"), "é")
            self.assertEqual(locale.get("de").translate("a"), "ä")

    def test_given_encoding(self) -> None:
        locale.load_translations(self.directory(fr__csv="a,é".encode("latin-1")), encoding="latin-1")
        self.assertEqual(locale.get("fr").translate("a"), "é")

    def test_strange_file_names_are_reported_and_left_out(self) -> None:
        with self.assertLogs("cycloneish.general", logging.ERROR) as logs:
            locale.load_translations(self.directory(French__csv="a,b", fr_fr__csv="a,b", a__b__csv="a,b"))
        self.assertEqual(len(logs.output), 3)
        self.assertEqual(set(locale.get_supported_locales()), {"en_US"})

    def test_loading_anew_replaces_what_was_there(self) -> None:
        locale.load_translations(self.directory(fr__csv="a,old"))
        self.assertEqual(locale.get("fr").translate("a"), "old")
        locale.load_translations(self.directory(fr__csv="a,new"))
        self.assertEqual(locale.get("fr").translate("a"), "new")

    def test_pgettext_warns(self) -> None:
        locale.load_translations(self.directory(fr__csv="a,é"))
        with self.assertLogs("cycloneish.general", logging.WARNING):
            self.assertEqual(locale.get("fr").pgettext("x", "a"), "é")
        with self.assertNoLogs("cycloneish.general"):
            self.assertEqual(locale.get("en_US").pgettext("x", "a"), "a")


class GettextTests(LocaleTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.root = self.mktemp()
        separator = locale.CONTEXT_SEPARATOR
        write_mo(
            os.path.join(self.root, "fr_FR", "LC_MESSAGES", "site.mo"),
            {
                "school": "école",
                "right": "à droite",
                f"law{separator}right": "le droit",
                "club\0clubs": "club\0clubs (général)",
                f"stick{separator}club\0clubs": "le bâton\0les bâtons",
            },
        )

    def test_translations_contexts_and_plurals(self) -> None:
        locale.load_gettext_translations(self.root, "site")
        french = locale.get("fr-fr")
        self.assertIsInstance(french, GettextLocale)
        self.assertEqual(french.translate("school"), "école")
        self.assertEqual(french.translate("club", "clubs", 2), "clubs (général)")
        self.assertEqual(french.pgettext("law", "right"), "le droit")
        self.assertEqual(french.pgettext("good", "right"), "right")
        # French counts 0 as singular, as the catalogue says.
        forms = [french.pgettext("stick", "club", "clubs", n) for n in (0, 1, 2)]
        self.assertEqual(forms, ["le bâton", "le bâton", "les bâtons"])
        self.assertEqual(french.pgettext("golf", "club", "clubs", 3), "clubs (général)")
        for call in (french.translate, lambda *args: french.pgettext("c", *args)):
            with self.assertRaises(ValueError):
                call("a", "b")

    def test_default_locale_needs_no_catalogue(self) -> None:
        locale.load_gettext_translations(self.root, "site")
        self.assertEqual(locale.get("en_US").translate("school"), "school")

    def test_damaged_catalogue_is_reported_and_left_out(self) -> None:
        os.makedirs(os.path.join(self.root, "de", "LC_MESSAGES"))
        with open(os.path.join(self.root, "de", "LC_MESSAGES", "site.mo"), "wb") as file:
            file.write(b"no catalogue")
        with self.assertLogs("cycloneish.general", logging.ERROR) as logs:
            locale.load_gettext_translations(self.root, "site")
        self.assertIn("'de'", logs.output[0])
        self.assertEqual(set(locale.get_supported_locales()), {"en_US", "fr_FR"})


class ClosestTests(LocaleTestCase):
    def setUp(self) -> None:
        super().setUp()
        locale.load_translations(self.directory(de__csv="", pt_BR__csv="", zh_TW__csv=""))

    def test_closest(self) -> None:
        cases = {
            ("de_AT",): "de",
            ("DE",): "de",
            ("pt-br",): "pt_BR",
            ("PT_BR",): "pt_BR",
            ("pt",): "en_US",
            ("fr", "", "de-CH"): "de",
            ("zh-Hant-TW",): "zh_TW",
            ("de-x-y-z", "de-aaaa-bb-cc"): "en_US",
            (): "en_US",
        }
        for codes, expected in cases.items():
            self.assertEqual(locale.get(*codes).code, expected, codes)

    def test_objects_are_kept(self) -> None:
        self.assertIs(locale.get("de"), locale.get("de_DE"))
        self.assertIs(Locale.get("de"), locale.get("de"))

    def test_unsupported_code_is_an_error(self) -> None:
        with self.assertRaises(ValueError) as caught:
            Locale.get("xx")
        self.assertIn("'xx'", str(caught.exception))

    def test_default_locale_can_be_set(self) -> None:
        locale.set_default_locale("de_DE")
        self.assertEqual(locale.get("fr").code, "de_DE")
        self.assertEqual(set(locale.get_supported_locales()), {"de", "de_DE", "pt_BR", "zh_TW"})

    def test_locale_itself_translates_nothing(self) -> None:
        with self.assertRaises(NotImplementedError):
            Locale("de")
        with self.assertRaises(NotImplementedError):
            Locale.pgettext(locale.get("de"), "a", "b")


class NameTests(LocaleTestCase):
    def test_table(self) -> None:
        self.assertGreater(len(LOCALE_NAMES), 62)
        for code, names in LOCALE_NAMES.items():
            self.assertRegex(code, "^[a-z]{2}_[A-Z]{2}$")
            self.assertEqual(set(names), {"name", "name_en"})
            self.assertTrue(names["name"].strip() == names["name"] != "", code)
            self.assertTrue(names["name_en"].isprintable() and "  " not in names["name_en"], code)
        self.assertEqual(LOCALE_NAMES["es_LA"], {"name_en": "Spanish", "name": "Español"})
        self.assertEqual(LOCALE_NAMES["zh_TW"], {"name_en": "Chinese (Traditional)", "name": "中文(繁體)"})

    def test_names_of_locales(self) -> None:
        names = [CSVLocale(code, {}).name for code in ("de_DE", "de", "zh", "xx_YY")]
        self.assertEqual(names, ["Deutsch", "Deutsch", "中文", "Unknown"])

    def test_direction_of_writing(self) -> None:
        rtl = [code for code in ("ar", "fa_IR", "he_IL", "ur_PK", "de", "fao") if CSVLocale(code, {}).rtl]
        self.assertEqual(rtl, ["ar", "fa_IR", "he_IL", "ur_PK"])


class DateTests(LocaleTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.english = CSVLocale("en_US", {})

    def format(self, date: Any, code: str = "en_US", **kwargs: Any) -> str:
        with mock.patch.object(locale.datetime, "datetime", FixedClock):
            return CSVLocale(code, {}).format_date(date, **kwargs)

    def ago(self, **kwargs: float) -> datetime.datetime:
        return FixedClock.fromisoformat(NOW.isoformat()) - datetime.timedelta(**kwargs)

    def test_some_time_ago(self) -> None:
        cases = [
            ({"seconds": 0}, "0 seconds ago"),
            ({"seconds": 1}, "1 second ago"),
            ({"seconds": 49}, "49 seconds ago"),
            ({"seconds": 50}, "1 minute ago"),
            ({"minutes": 2, "seconds": 20}, "2 minutes ago"),
            ({"minutes": 50}, "1 hour ago"),
            ({"hours": 23}, "23 hours ago"),
            ({"days": 1, "hours": 2}, "yesterday at 10:00 am"),
            ({"days": 1, "hours": 13}, "Tuesday at 11:00 pm"),
            ({"days": 3}, "Monday at 12:00 pm"),
            ({"days": 10}, "October 5 at 12:00 pm"),
            ({"days": 333}, "November 16 at 12:00 pm"),
            ({"days": 334}, "November 15, 2025 at 12:00 pm"),
        ]
        for distance, expected in cases:
            self.assertEqual(self.format(self.ago(**distance)), expected)

    def test_shorter(self) -> None:
        cases = [(1, "yesterday"), (3, "Monday"), (10, "October 5"), (400, "September 10, 2025")]
        for days, expected in cases:
            self.assertEqual(self.format(self.ago(days=days), shorter=True), expected)

    def test_not_relative(self) -> None:
        self.assertEqual(self.format(self.ago(hours=2), relative=False), "10:00 am")
        self.assertEqual(self.format(self.ago(days=1), relative=False), "Wednesday at 12:00 pm")

    def test_full_format(self) -> None:
        self.assertEqual(self.format(self.ago(days=1), full_format=True), "October 14, 2026 at 12:00 pm")

    def test_future(self) -> None:
        self.assertEqual(self.format(self.ago(seconds=-30)), "0 seconds ago")
        self.assertEqual(self.format(self.ago(seconds=-30), relative=False), "October 15, 2026 at 12:00 pm")
        self.assertEqual(self.format(self.ago(days=-1)), "October 16, 2026 at 12:00 pm")

    def test_forms_of_date(self) -> None:
        when = self.ago(days=1)
        naive = when.replace(tzinfo=None)
        for date in (when, naive, when.timestamp(), int(when.timestamp())):
            self.assertEqual(self.format(date), "yesterday at 12:00 pm")

    def test_offset_of_the_reader(self) -> None:
        self.assertEqual(self.format(self.ago(days=1), gmt_offset=-120), "yesterday at 2:00 pm")
        # Yesterday by UTC, but the day before yesterday where it is one o'clock at night.
        self.assertEqual(self.format(self.ago(days=1, hours=2), gmt_offset=660), "Tuesday at 11:00 pm")

    def test_clocks(self) -> None:
        for code, morning, evening in (
            ("en_US", "12:05 am", "6:30 pm"),
            ("de_DE", "0:05", "18:30"),
            ("zh_CN", "上午12:05", "下午6:30"),
        ):
            day = datetime.datetime(2026, 10, 12)
            for date, expected in (
                (day.replace(hour=0, minute=5), morning),
                (day.replace(hour=18, minute=30), evening),
            ):
                self.assertEqual(self.format(date, code), f"Monday at {expected}")

    def test_translated(self) -> None:
        german = CSVLocale(
            "de_DE",
            {
                "unknown": {"Monday": "Montag", "%(weekday)s at %(time)s": "%(weekday)s um %(time)s Uhr"},
                "plural": {"%(minutes)d minutes ago": "vor %(minutes)d Minuten"},
            },
        )
        with mock.patch.object(locale.datetime, "datetime", FixedClock):
            self.assertEqual(german.format_date(self.ago(days=3)), "Montag um 12:00 Uhr")
            self.assertEqual(german.format_date(self.ago(minutes=5)), "vor 5 Minuten")

    def test_real_clock(self) -> None:
        past = datetime.datetime.now(datetime.UTC) - datetime.timedelta(minutes=3)
        self.assertEqual(self.english.format_date(past), "3 minutes ago")

    def test_day(self) -> None:
        date = datetime.datetime(2013, 4, 28, 18, 35)
        self.assertEqual(self.english.format_day(date), "Sunday, April 28")
        self.assertEqual(self.english.format_day(date, dow=False), "April 28")
        self.assertEqual(self.english.format_day(date, gmt_offset=-360), "Monday, April 29")


class ListAndNumberTests(LocaleTestCase):
    def test_lists(self) -> None:
        english = CSVLocale("en_US", {})
        cases = [([], ""), (["A"], "A"), (["A", "B"], "A and B"), (["A", "B", "C"], "A, B and C")]
        for parts, expected in cases:
            self.assertEqual(english.list(parts), expected)
        self.assertEqual(CSVLocale("fa_IR", {}).list(["A", "B", "C"]), "A و B and C")

    def test_numbers(self) -> None:
        english = CSVLocale("en_US", {})
        self.assertEqual(
            [english.friendly_number(n) for n in (1_000_000, 999, -100)], ["1,000,000", "999", "-100"]
        )
        self.assertEqual(CSVLocale("de_DE", {}).friendly_number(1_000_000), "1000000")
