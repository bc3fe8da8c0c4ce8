"""Declarative forms on WTForms, for handlers::

    from cycloneish.forms import DataRequired, Form, FormMixin, StringField

    class SignUp(Form):
        name = StringField("Name", [DataRequired()])

Fields and validators of WTForms are here under their own names.  :class:`ModelForm`, a form out of a mapped
class, needs SQLAlchemy and is loaded when it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

try:
    import wtforms  # noqa: F401
except ImportError as error:
    raise ImportError("forms need more libraries: pip install 'cycloneish[forms]'") from error

from cycloneish.forms import uimodules
from cycloneish.forms.data import FormData, wants_json
from cycloneish.forms.fields import *  # noqa: F403
from cycloneish.forms.fields import __all__ as _fields
from cycloneish.forms.form import Form
from cycloneish.forms.handlers import FormMixin
from cycloneish.forms.problems import problem_details
from cycloneish.forms.rendering import BOOTSTRAP, CLASSES
from cycloneish.forms.validators import *  # noqa: F403
from cycloneish.forms.validators import __all__ as _validators

if TYPE_CHECKING:
    from cycloneish.forms.model import ModelForm

__all__ = [
    "BOOTSTRAP",
    "CLASSES",
    "Form",
    "FormData",
    "FormMixin",
    "ModelForm",
    "problem_details",
    "uimodules",
    "wants_json",
    *_fields,
    *_validators,
]


def __getattr__(name: str) -> Any:
    if name == "ModelForm":
        from cycloneish.forms.model import ModelForm

        return ModelForm
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
