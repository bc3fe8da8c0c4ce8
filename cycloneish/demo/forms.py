"""What members fill in, and what is wrong with it."""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import func, select

from cycloneish.demo.checks import picture_type
from cycloneish.demo.models import Member
from cycloneish.forms import (
    DataRequired,
    FileField,
    Form,
    HiddenField,
    InputRequired,
    Length,
    PasswordField,
    Regexp,
    StringField,
    TextAreaField,
    ValidationError,
)

LONGEST_TEXT = 2000
LARGEST_PICTURE = 3 * 1024 * 1024

_NAME = {"autocomplete": "username", "autocapitalize": "none", "spellcheck": "false"}


def _(message: str) -> str:
    """Marks a message for the translators; it is translated when it is shown."""
    return message


class Account(Form):
    """Name and password of somebody who has them already."""

    name = StringField(_("Name"), [DataRequired(), Length(max=30)], render_kw=_NAME)
    password = PasswordField(
        _("Password"), [DataRequired(), Length(max=200)], render_kw={"autocomplete": "current-password"}
    )
    next = HiddenField()


class NewAccount(Account):
    """The same for somebody who is new."""

    name = StringField(
        _("Name"),
        [
            DataRequired(),
            Length(max=30),
            Regexp(
                re.compile(r"[\w.-]{2,30}\Z"), message=_("2 to 30 letters, digits, dots or dashes, please.")
            ),
        ],
        render_kw=_NAME,
    )
    password = PasswordField(
        _("Password"),
        [
            InputRequired(_("At least 8 characters, please.")),
            Length(8, 200, message=_("At least 8 characters, please.")),
        ],
        description=_("At least 8 characters, please."),
        render_kw={"autocomplete": "new-password"},
    )

    async def validate_name(self, field: Any) -> None:
        database: Any = self.handler.settings["database"]  # type: ignore[union-attr]
        taken = select(Member.id).where(func.lower(Member.name) == func.lower(field.data))
        if await database.fetch_value(taken):
            raise ValidationError(_("This name is taken."))


class Compose(Form):
    """A message, a picture, or both."""

    text = TextAreaField(filters=[lambda text: (text or "").replace("\r\n", "\n").strip()])
    picture = FileField()
    picture_type: str | None = None

    def validate_text(self, field: Any) -> None:
        if len(field.data) > LONGEST_TEXT:
            message = field.gettext(_("This is too long: %(most)d characters at most."))
            raise ValidationError(message % {"most": LONGEST_TEXT})

    def validate_picture(self, field: Any) -> None:
        if field.data is None or not field.data.body:
            field.data = None
        elif len(field.data.body) > LARGEST_PICTURE:
            raise ValidationError(_("The picture is too large: 3 MB at most."))
        else:
            self.picture_type = picture_type(field.data.body)
            if self.picture_type is None:
                raise ValidationError(_("This is no picture: PNG, JPEG, GIF or WebP, please."))

    def clean(self) -> None:
        if not self.text.data and self.picture.data is None:
            raise ValidationError(_("Write something, or choose a picture."))
