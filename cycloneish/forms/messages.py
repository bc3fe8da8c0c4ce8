"""Messages in the visitor's language: the application's own translations first, then those of WTForms."""

from __future__ import annotations

import gettext
from functools import lru_cache

import wtforms
from wtforms.i18n import messages_path

from cycloneish.locale import Locale

__all__ = ["Messages", "own_errors", "say"]


class Messages:
    """What WTForms asks for translations.

    :param locale: the handler's; its tables (``cycloneish.locale``) go first, so that an application can say
        a message in its own words.
    """

    def __init__(self, locale: Locale) -> None:
        self._locale = locale
        self._catalogue = _catalogue(locale.code)

    def gettext(self, message: str) -> str:
        """*message*, translated."""
        translated = self._locale.translate(message)
        return translated if translated != message else self._catalogue.gettext(message)

    def ngettext(self, singular: str, plural: str, count: int) -> str:
        """The form of the message for *count*, translated."""
        message = singular if count == 1 else plural
        translated = self._locale.translate(singular, plural, count)
        return translated if translated != message else self._catalogue.ngettext(singular, plural, count)


@lru_cache(maxsize=64)
def _catalogue(code: str) -> gettext.NullTranslations:
    """WTForms' own messages for a locale such as ``de_AT``, else for its language."""
    return gettext.translation("wtforms", messages_path(), [code, code.partition("_")[0]], fallback=True)


def say(field: wtforms.Field, text: object) -> str:
    """*text* in the language of the field's form, where there is a translation."""
    words = str(text)
    return str(field.gettext(words)) if words else ""


def own_errors(field: wtforms.Field) -> list[str]:
    """The errors of *field* itself, translated; those of a list's entries belong to the entries."""
    return [say(field, error) for error in field.errors if not isinstance(error, list | tuple | dict)]
