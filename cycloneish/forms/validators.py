"""Validators for uploaded files, beside those of WTForms, which are handed on unchanged.

A validator is called with the form and the field and raises :exc:`ValidationError`, or
:exc:`StopValidation` to end the field's chain.  It may be ``async def`` or return a Deferred; see
:meth:`cycloneish.forms.Form.validate`.
"""

from __future__ import annotations

import os
from typing import Any

from wtforms.validators import (
    URL,
    UUID,
    AnyOf,
    DataRequired,
    DateRange,
    Disabled,
    Email,
    EqualTo,
    InputRequired,
    IPAddress,
    Length,
    MacAddress,
    NoneOf,
    NumberRange,
    Optional,
    ReadOnly,
    Regexp,
    StopValidation,
    ValidationError,
)

__all__ = [
    "URL",
    "UUID",
    "AnyOf",
    "DataRequired",
    "DateRange",
    "Disabled",
    "Email",
    "EqualTo",
    "FileExtension",
    "FileSize",
    "FileType",
    "IPAddress",
    "InputRequired",
    "Length",
    "MacAddress",
    "NoneOf",
    "NumberRange",
    "Optional",
    "ReadOnly",
    "Regexp",
    "StopValidation",
    "ValidationError",
]


class _FileValidator:
    """Looks at each file of a field."""

    def __init__(self, message: str | None = None) -> None:
        self.message = message

    def __call__(self, form: Any, field: Any) -> None:
        files = field.data if isinstance(field.data, list) else [field.data]
        for file in files:
            if file is not None and not self.accepts(file):
                raise ValidationError(self.message or self.refusal(field))

    def accepts(self, file: Any) -> bool:
        """Whether the file is as it should be."""
        raise NotImplementedError

    def refusal(self, field: Any) -> str:
        """What to tell the visitor."""
        raise NotImplementedError


class FileSize(_FileValidator):
    """A file has at least *min* and at most *max* bytes."""

    def __init__(self, max: int, min: int = 0, message: str | None = None) -> None:
        super().__init__(message)
        self.max = max
        self.min = min

    def accepts(self, file: Any) -> bool:
        """Whether its length is within the bounds."""
        content = file.file
        position = content.tell()
        length = content.seek(0, os.SEEK_END)
        content.seek(position)
        return bool(self.min <= length <= self.max)

    def refusal(self, field: Any) -> str:
        """What to tell the visitor."""
        return str(
            field.gettext("The file must have between %(min)d and %(max)d bytes.")
            % {"min": self.min, "max": self.max}
        )


class FileExtension(_FileValidator):
    """The name of a file ends with one of these, without regard to case: ``FileExtension("png", "jpg")``.

    A name proves nothing about the content; see :class:`FileType`.
    """

    def __init__(self, *extensions: str, message: str | None = None) -> None:
        super().__init__(message)
        self.extensions = tuple("." + extension.lower().lstrip(".") for extension in extensions)
        self.field_flags = {"accept": ",".join(self.extensions)}

    def accepts(self, file: Any) -> bool:
        """Whether its name ends so."""
        return str(file.filename).lower().endswith(self.extensions)

    def refusal(self, field: Any) -> str:
        """What to tell the visitor."""
        return str(
            field.gettext("The name of the file must end with: %(endings)s.")
            % {"endings": ", ".join(self.extensions)}
        )


#: How files of a type begin.
_BEGINNINGS = {
    "image/png": (b"\x89PNG\r\n\x1a\n",),
    "image/jpeg": (b"\xff\xd8\xff",),
    "image/gif": (b"GIF87a", b"GIF89a"),
    "application/pdf": (b"%PDF-",),
    "application/zip": (b"PK\x03\x04", b"PK\x05\x06"),
    "application/gzip": (b"\x1f\x8b",),
}


class FileType(_FileValidator):
    """The content of a file begins as that of one of these types: ``FileType("image/png", "image/jpeg")``.

    What the client says of the type is not looked at.  Known are PNG, JPEG, GIF, WebP, PDF, ZIP and gzip.

    :raises ValueError: a type is not known.
    """

    def __init__(self, *types: str, message: str | None = None) -> None:
        super().__init__(message)
        for wanted in types:
            if wanted not in _BEGINNINGS and wanted != "image/webp":
                raise ValueError(
                    f"FileType does not know {wanted}; it knows {', '.join(_BEGINNINGS)}, image/webp"
                )
        self.types = types
        self.field_flags = {"accept": ",".join(types)}

    def accepts(self, file: Any) -> bool:
        """Whether its first bytes are those of a wanted type."""
        content = file.file
        position = content.tell()
        content.seek(0)
        start = content.read(16)
        content.seek(position)
        return any(
            start[:4] == b"RIFF" and start[8:12] == b"WEBP"
            if wanted == "image/webp"
            else start.startswith(_BEGINNINGS[wanted])
            for wanted in self.types
        )

    def refusal(self, field: Any) -> str:
        """What to tell the visitor."""
        return str(
            field.gettext("The file must be of one of these types: %(types)s.")
            % {"types": ", ".join(wanted.partition("/")[2].upper() for wanted in self.types)}
        )
