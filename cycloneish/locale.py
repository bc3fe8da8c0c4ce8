"""Translations and the ways of writing dates, numbers and lists.

Called by handlers (``get_user_locale``, ``get_browser_locale``) and, as ``locale`` and ``_``, by templates.
Translations come from CSV files or from gettext's ``.mo`` files and are loaded when the program starts; a
`Locale` is an immutable object per code, kept. The names are those of Tornado's ``tornado.locale``, and
so are the English messages to be translated for dates and lists: translation files made for it serve here.

Example::

    locale.load_translations("translations")      # translations/de_DE.csv, translations/fr.csv
    german = locale.get("de_AT", "de_DE")
    german.translate("Sign out")
"""

from __future__ import annotations

import codecs
import csv
import datetime
import gettext
import glob
import os
import re
from collections.abc import Iterable, Sequence
from typing import Any

from cycloneish._locale_data import LANGUAGE_NAMES, LOCALE_NAMES
from cycloneish.log import gen_log

__all__ = [
    "CONTEXT_SEPARATOR",
    "LOCALE_NAMES",
    "CSVLocale",
    "GettextLocale",
    "Locale",
    "get",
    "get_supported_locales",
    "load_gettext_translations",
    "load_translations",
    "set_default_locale",
]

#: What gettext puts between context and message in a catalogue.
CONTEXT_SEPARATOR = "\x04"

_default_locale = "en_US"
_translations: dict[str, Any] = {}
_supported_locales: frozenset[str] = frozenset([_default_locale])
_use_gettext = False

_CODE = re.compile(r"[a-z]+(?:_[A-Z]+)?")
_PLURALS = frozenset(("plural", "singular", "unknown"))
_RIGHT_TO_LEFT = frozenset(("ar", "ckb", "dv", "fa", "he", "iw", "ps", "sd", "ug", "ur", "yi"))


def get(*locale_codes: str) -> Locale:
    """The first locale of these that there are translations for, else the default one.

    See `Locale.get_closest`.
    """
    return Locale.get_closest(*locale_codes)


def set_default_locale(code: str) -> None:
    """Say what language the messages in the code are in; it needs no translations. At first ``en_US``."""
    global _default_locale
    _default_locale = code
    _use(_translations, _use_gettext)


def get_supported_locales() -> Iterable[str]:
    """The codes of the loaded locales and of the default one."""
    return _supported_locales


def _use(translations: dict[str, Any], is_gettext: bool) -> None:
    global _translations, _supported_locales, _use_gettext
    _translations = translations
    _use_gettext = is_gettext
    _supported_locales = frozenset([*translations, _default_locale])
    # The kept objects hold what was loaded before.
    Locale._cache = {}


# ------------------------------------------------------------------ loading


def load_translations(directory: str, encoding: str | None = None) -> None:
    """Load translations from the CSV files of a directory.

    :param directory: has files named ``de_DE.csv`` or ``de.csv``. Others are reported and left out.
    :param encoding: of all files. By default UTF-16 for a file that starts with its byte order mark, else
        UTF-8.

    A row is message, translation, and optionally ``singular``, ``plural`` or ``unknown``; the last is
    meant by an empty or missing third column::

        "Sign out","Abmelden"
        "%(n)d message","%(n)d Nachricht","singular"
        "%(n)d messages","%(n)d Nachrichten","plural"

    What was loaded before is dropped.
    """
    translations: dict[str, Any] = {}
    for name in sorted(os.listdir(directory)):
        code, extension = os.path.splitext(name)
        if extension != ".csv":
            continue
        path = os.path.join(directory, name)
        if not _CODE.fullmatch(code):
            gen_log.error("Unrecognized locale %r (path: %s)", code, path)
            continue
        with open(path, encoding=encoding or _guess_encoding(path), newline="") as file:
            translations[code] = _read_csv(file, path)
    _use(translations, is_gettext=False)
    gen_log.debug("Supported locales: %s", sorted(_supported_locales))


def _guess_encoding(path: str) -> str:
    with open(path, "rb") as file:
        start = file.read(2)
    return "utf-16" if start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"


def _read_csv(lines: Iterable[str], path: str) -> dict[str, dict[str, str]]:
    forms: dict[str, dict[str, str]] = {}
    rows = csv.reader(lines)
    for row in rows:
        cells = [cell.strip() for cell in row]
        if len(cells) < 2:
            continue
        plural = (cells[2] if len(cells) > 2 else "") or "unknown"
        if plural not in _PLURALS:
            gen_log.error("Unrecognized plural indicator %r in %s line %d", plural, path, rows.line_num)
            continue
        forms.setdefault(plural, {})[cells[0]] = cells[1]
    return forms


def load_gettext_translations(directory: str, domain: str) -> None:
    """Load gettext's compiled catalogues.

    :param directory: has ``de_DE/LC_MESSAGES/DOMAIN.mo`` and its like.
    :param domain: the name of the catalogues.

    A damaged catalogue is reported and left out. What was loaded before is dropped. To make catalogues of a
    program's messages::

        xgettext --language=Python --keyword=_:1,2 --keyword=pgettext:1c,2 \
            --keyword=pgettext:1c,2,3 -d DOMAIN app.py templates/*.html
        msgmerge --update de_DE.po DOMAIN.po
        msgfmt de_DE.po -o DIRECTORY/de_DE/LC_MESSAGES/DOMAIN.mo
    """
    translations: dict[str, Any] = {}
    pattern = os.path.join(glob.escape(directory), "*", "LC_MESSAGES", glob.escape(domain) + ".mo")
    for path in sorted(glob.glob(pattern)):
        code = os.path.basename(os.path.dirname(os.path.dirname(path)))
        try:
            translations[code] = gettext.translation(domain, directory, languages=[code])
        except Exception as error:  # noqa: BLE001, RUF100  the parser of .mo files raises whatever it meets
            gen_log.error("Cannot load translation for %r: %s", code, error)
    _use(translations, is_gettext=True)
    gen_log.debug("Supported locales: %s", sorted(_supported_locales))


# ------------------------------------------------------------------ locales


class Locale:
    """A language, perhaps of a country: its translations and its ways of writing.

    `get` and `get_closest` give them; `CSVLocale` and `GettextLocale` are the kinds. Attributes: ``code``
    (``de_DE``), ``name`` (``Deutsch``, or ``Unknown``) and ``rtl``, true for scripts written from right to
    left. Counterpart: ``tornado.locale.Locale``.
    """

    _cache: dict[str, Locale] = {}

    @classmethod
    def get_closest(cls, *locale_codes: str) -> Locale:
        """The first of these codes that is supported, itself or its language alone, else the default.

        Codes are as in ``Accept-Language`` (``de-at``) or with an underscore; a script between language
        and country (``zh-Hant-TW``) is passed over.
        """
        for code in locale_codes:
            if not code:
                continue
            language, *rest = code.replace("-", "_").split("_")
            if len(rest) == 2 and len(rest[0]) == 4:
                del rest[0]
            if len(rest) > 1:
                continue
            if rest:
                code = f"{language.lower()}_{rest[0].upper()}"
            if code in _supported_locales:
                return cls.get(code)
            if language.lower() in _supported_locales:
                return cls.get(language.lower())
        return cls.get(_default_locale)

    @classmethod
    def get(cls, code: str) -> Locale:
        """The locale of exactly this code.

        :raises ValueError: if it was not loaded and is not the default one.
        """
        locale = Locale._cache.get(code)
        if locale is None:
            if code not in _supported_locales:
                raise ValueError(f"locale {code!r} is not among {sorted(_supported_locales)}")
            translations = _translations.get(code)
            if translations is not None and _use_gettext:
                locale = GettextLocale(code, translations)
            else:
                locale = CSVLocale(code, translations or {})
            Locale._cache[code] = locale
        return locale

    def __init__(self, code: str) -> None:
        self.code = code
        names = LOCALE_NAMES.get(code)
        self.name = names["name"] if names else LANGUAGE_NAMES.get(code, "Unknown")
        self.rtl = code.partition("_")[0] in _RIGHT_TO_LEFT
        _ = self.translate
        self._months = [
            _("January"),
            _("February"),
            _("March"),
            _("April"),
            _("May"),
            _("June"),
            _("July"),
            _("August"),
            _("September"),
            _("October"),
            _("November"),
            _("December"),
        ]
        self._weekdays = [
            _("Monday"),
            _("Tuesday"),
            _("Wednesday"),
            _("Thursday"),
            _("Friday"),
            _("Saturday"),
            _("Sunday"),
        ]

    def translate(self, message: str, plural_message: str | None = None, count: int | None = None) -> str:
        """The message in this language, itself if there is no translation.

        :param plural_message: used, and translated, when ``count`` is not 1 (gettext: as the language's own
            plural rule says). ``count`` has to be given with it.
        :raises ValueError: for ``plural_message`` without ``count``.
        """
        raise NotImplementedError

    def pgettext(
        self, context: str, message: str, plural_message: str | None = None, count: int | None = None
    ) -> str:
        """Like `translate`, where one word needs several translations: ``context`` says which is meant."""
        raise NotImplementedError

    # -------------------------------------------------------------- dates

    def format_date(
        self,
        date: int | float | datetime.datetime,
        gmt_offset: int = 0,
        relative: bool = True,
        shorter: bool = False,
        full_format: bool = False,
    ) -> str:
        """A time in the past, in the shortest words that say it: "2 minutes ago", "yesterday at 7:05 pm".

        :param date: Unix time in seconds, or a datetime; a naive one is in UTC.
        :param gmt_offset: minutes to take away from UTC to get the reader's time (JavaScript's
            ``getTimezoneOffset()``).
        :param relative: False for no "ago" and no "yesterday".
        :param shorter: leave out the time of day where there is a date.
        :param full_format: always month, day, year and time. So are times more than a minute in the future.
        """
        if isinstance(date, (int, float)):
            date = datetime.datetime.fromtimestamp(date, datetime.UTC)
        elif date.tzinfo is None:
            date = date.replace(tzinfo=datetime.UTC)
        now = datetime.datetime.now(datetime.UTC)
        if date > now:
            if relative and date - now < datetime.timedelta(minutes=1):
                # The clocks of two machines differ by some seconds.
                date = now
            else:
                full_format = True
        age = now - date
        if relative and not full_format and age.days == 0:
            return self._ago(age.seconds)
        offset = datetime.timedelta(minutes=gmt_offset)
        local = date - offset
        is_yesterday = local.date() == (now - offset).date() - datetime.timedelta(days=1)
        if full_format:
            pattern = self._date_pattern(None, False, shorter)
        else:
            pattern = self._date_pattern(age.days, relative and is_yesterday, shorter)
        return pattern % {
            "month_name": self._months[local.month - 1],
            "weekday": self._weekdays[local.weekday()],
            "day": str(local.day),
            "year": str(local.year),
            "time": self._time_of_day(local),
        }

    def _ago(self, seconds: int) -> str:
        _ = self.translate
        if seconds < 50:
            return _("1 second ago", "%(seconds)d seconds ago", seconds) % {"seconds": seconds}
        if seconds < 50 * 60:
            minutes = round(seconds / 60)
            return _("1 minute ago", "%(minutes)d minutes ago", minutes) % {"minutes": minutes}
        hours = round(seconds / 3600)
        return _("1 hour ago", "%(hours)d hours ago", hours) % {"hours": hours}

    def _date_pattern(self, days: int | None, yesterday: bool, shorter: bool) -> str:
        _ = self.translate
        if days == 0:
            return _("%(time)s")
        if days == 1 and yesterday:
            return _("yesterday") if shorter else _("yesterday at %(time)s")
        if days is not None and days < 5:
            return _("%(weekday)s") if shorter else _("%(weekday)s at %(time)s")
        # After eleven months the name of the month alone could mean this year's.
        if days is not None and days < 334:
            return _("%(month_name)s %(day)s") if shorter else _("%(month_name)s %(day)s at %(time)s")
        if shorter:
            return _("%(month_name)s %(day)s, %(year)s")
        return _("%(month_name)s %(day)s, %(year)s at %(time)s")

    def _time_of_day(self, local: datetime.datetime) -> str:
        hour, minute = local.hour, local.minute
        if self.code in ("en", "en_US"):
            return f"{hour % 12 or 12}:{minute:02d} {'pm' if hour >= 12 else 'am'}"
        if self.code == "zh_CN":
            return f"{'下午' if hour >= 12 else '上午'}{hour % 12 or 12}:{minute:02d}"
        return f"{hour}:{minute:02d}"

    def format_day(self, date: datetime.datetime, gmt_offset: int = 0, dow: bool = True) -> str:
        """The day, such as "Monday, January 22".

        :param gmt_offset: minutes to take away from ``date`` to get the reader's time.
        :param dow: with the day of the week.
        """
        local = date - datetime.timedelta(minutes=gmt_offset)
        pattern = "%(weekday)s, %(month_name)s %(day)s" if dow else "%(month_name)s %(day)s"
        return self.translate(pattern) % {
            "month_name": self._months[local.month - 1],
            "weekday": self._weekdays[local.weekday()],
            "day": str(local.day),
        }

    # -------------------------------------------------------------- lists and numbers

    def list(self, parts: Sequence[str]) -> str:
        """The parts as an enumeration: "A, B and C"."""
        if not parts:
            return ""
        if len(parts) == 1:
            return parts[0]
        comma = " و " if self.code.partition("_")[0] == "fa" else ", "
        return self.translate("%(commas)s and %(last)s") % {
            "commas": comma.join(parts[:-1]),
            "last": parts[-1],
        }

    def friendly_number(self, value: int) -> str:
        """An integer, in English with commas between the thousands: "1,000,000"."""
        return f"{value:,}" if self.code in ("en", "en_US") else str(value)


def _is_plural(plural_message: str | None, count: int | None) -> bool:
    if plural_message is None:
        return False
    if count is None:
        raise ValueError(f"a plural ({plural_message!r}) needs a count")
    return True


class CSVLocale(Locale):
    """A locale whose translations come from a CSV file (`load_translations`), or that has none."""

    def __init__(self, code: str, translations: dict[str, dict[str, str]]) -> None:
        self.translations = translations
        super().__init__(code)

    def translate(self, message: str, plural_message: str | None = None, count: int | None = None) -> str:
        form = "unknown"
        if plural_message is not None and _is_plural(plural_message, count):
            form = "singular" if count == 1 else "plural"
            if count != 1:
                message = plural_message
        return self.translations.get(form, {}).get(message, message)

    def pgettext(
        self,
        context: str,
        message: str,
        plural_message: str | None = None,
        count: int | None = None,
    ) -> str:
        """CSV files know no contexts: logs a warning and translates without."""
        if self.translations:
            gen_log.warning("pgettext is not supported by CSVLocale")
        return self.translate(message, plural_message, count)


class GettextLocale(Locale):
    """A locale whose translations come from a gettext catalogue (`load_gettext_translations`)."""

    def __init__(self, code: str, translations: gettext.NullTranslations) -> None:
        self.translations = translations
        self.gettext = translations.gettext
        self.ngettext = translations.ngettext
        self._pgettext = translations.pgettext
        self._npgettext = translations.npgettext
        super().__init__(code)

    def translate(self, message: str, plural_message: str | None = None, count: int | None = None) -> str:
        if plural_message is not None and count is not None:
            return self.ngettext(message, plural_message, count)
        _is_plural(plural_message, count)
        return self.gettext(message)

    def pgettext(
        self, context: str, message: str, plural_message: str | None = None, count: int | None = None
    ) -> str:
        """The translation for this context; for a plural that has none, the one without context.

        Example::

            locale.pgettext("law", "right")
            locale.pgettext("stick", "club", "clubs", len(clubs))
        """
        if plural_message is None or count is None:
            _is_plural(plural_message, count)
            return self._pgettext(context, message)
        result = self._npgettext(context, message, plural_message, count)
        if result in (message, plural_message):
            return self.ngettext(message, plural_message, count)
        return result
