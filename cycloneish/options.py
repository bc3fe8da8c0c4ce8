"""Options of a program, defined where they are used and set by command line and configuration file.

Called by programs written for Tornado (``define``, ``options``, ``parse_command_line``) and by the demo.
The names are those of Tornado's ``tornado.options``.

Example::

    from cycloneish.options import define, options, parse_command_line

    define("port", default=8888, help="port to listen on")
    parse_command_line()
    application.listen(options.port)
"""

from __future__ import annotations

import datetime
import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TextIO

from cycloneish.escape import native_str
from cycloneish.log import define_logging_options, enable_pretty_logging, set_global_options
from cycloneish.util import exec_in

__all__ = [
    "Error",
    "OptionParser",
    "add_parse_callback",
    "define",
    "enable_pretty_logging",
    "options",
    "parse_command_line",
    "parse_config_file",
    "print_help",
]


class Error(Exception):
    """An option that does not exist, exists twice, or got a value it cannot have."""


# ------------------------------------------------------------------ values from text

_FALSE = frozenset(("false", "f", "0", "no", "n", "off"))

_DATETIME_FORMATS = (
    "%Y-%m-%d %H:%M:%S",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%dT%H:%M:%S",
    "%Y-%m-%dT%H:%M",
    "%Y-%m-%d",
    "%Y%m%d %H:%M:%S",
    "%Y%m%d %H:%M",
    "%Y%m%d",
    "%H:%M:%S",
    "%H:%M",
    "%a %b %d %H:%M:%S %Y",
)

_UNITS = {
    "": "seconds",
    "us": "microseconds",
    "ms": "milliseconds",
    "s": "seconds",
    "sec": "seconds",
    "m": "minutes",
    "min": "minutes",
    "h": "hours",
    "d": "days",
    "w": "weeks",
}
_UNITS.update({name: name for name in list(_UNITS.values())})

_AMOUNT = re.compile(r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*([A-Za-z]*)\s*")


def _parse_bool(text: str) -> bool:
    return text.strip().lower() not in _FALSE


def _parse_datetime(text: str) -> datetime.datetime:
    for form in _DATETIME_FORMATS:
        try:
            return datetime.datetime.strptime(text, form)  # noqa: DTZ007, RUF100  naive, as written
        except ValueError:
            continue
    raise ValueError("no date or time in a form that is known, such as 2026-12-31 23:59")


def _parse_timedelta(text: str) -> datetime.timedelta:
    total = datetime.timedelta()
    position = 0
    while position < len(text):
        amount = _AMOUNT.match(text, position)
        if amount is None or amount[2] not in _UNITS:
            raise ValueError("no length of time such as 45s, 1h 30min or 2d")
        total += datetime.timedelta(**{_UNITS[amount[2]]: float(amount[1])})
        position = amount.end()
    return total


_PARSERS: dict[type, Callable[[str], Any]] = {
    bool: _parse_bool,
    datetime.datetime: _parse_datetime,
    datetime.timedelta: _parse_timedelta,
    str: native_str,
}


class _Option:
    """One option: what it may hold, and what it holds."""

    _UNSET = object()

    def __init__(
        self,
        name: str,
        kind: type,
        default: Any,
        multiple: bool,
        help_text: str | None,
        metavar: str | None,
        file_name: str,
        group_name: str,
        callback: Callable[[Any], None] | None,
    ) -> None:
        self.name = name
        self.type = kind
        self.default = [] if multiple and default is None else default
        self.multiple = multiple
        self.help = help_text
        self.metavar = metavar
        self.file_name = file_name
        self.group_name = group_name
        self._callback = callback
        self._value: Any = self._UNSET

    def value(self) -> Any:
        return self.default if self._value is self._UNSET else self._value

    def parse(self, text: str) -> None:
        """Set from text, as on a command line."""
        try:
            value = self._parse_list(text) if self.multiple else self._parse_one(text)
        except ValueError as error:
            reason = f" ({error})" if str(error) else ""
            raise Error(
                f"Option {self.name!r}: {text!r} cannot be read as {self.type.__name__}{reason}"
            ) from error
        self._assign(value)

    def _parse_one(self, text: str) -> Any:
        return _PARSERS.get(self.type, self.type)(text)

    def _parse_list(self, text: str) -> list[Any]:
        values: list[Any] = []
        is_integer = issubclass(self.type, int) and self.type is not bool
        for part in text.split(","):
            first, colon, last = part.partition(":") if is_integer else (part, "", "")
            low = self._parse_one(first)
            if colon and last:
                values.extend(range(low, self._parse_one(last) + 1))
            else:
                values.append(low)
        return values

    def set(self, value: Any) -> None:
        """Set from a value of the right type."""
        if self.multiple:
            if not isinstance(value, list):
                raise Error(f"Option {self.name!r} needs a list of {self.type.__name__}, not {value!r}")
            self._assign([self._checked(item) for item in value])
        else:
            self._assign(self._checked(value))

    def _checked(self, value: Any) -> Any:
        if value is None or isinstance(value, self.type):
            return value
        if self.type is float and isinstance(value, int):
            return float(value)
        raise Error(f"Option {self.name!r} needs {self.type.__name__}, not {value!r}")

    def _assign(self, value: Any) -> None:
        self._value = value
        if self._callback is not None:
            self._callback(value)


class OptionParser:
    """A set of options, to be read and set as attributes or as items.

    ``-`` and ``_`` in names mean the same: ``--log-file`` sets ``options.log_file``. The functions of this
    module work on the one global instance, `options`. Counterpart: ``tornado.options.OptionParser``.
    """

    _options: dict[str, _Option]
    _parse_callbacks: list[Callable[[], None]]

    def __init__(self) -> None:
        # __setattr__ is for options.
        self.__dict__["_options"] = {}
        self.__dict__["_parse_callbacks"] = []
        self.define("help", type=bool, help="show this help", callback=self._help_callback)

    @staticmethod
    def _normalize_name(name: str) -> str:
        return name.replace("_", "-")

    def _find(self, name: str) -> _Option:
        option = self._options.get(self._normalize_name(name))
        if option is None:
            raise AttributeError(f"no option {name!r} was defined")
        return option

    def __getattr__(self, name: str) -> Any:
        return self._find(name).value()

    def __setattr__(self, name: str, value: Any) -> None:
        self._find(name).set(value)

    def __getitem__(self, name: str) -> Any:
        return self._find(name).value()

    def __setitem__(self, name: str, value: Any) -> None:
        self._find(name).set(value)

    def __iter__(self) -> Iterator[str]:
        return (option.name for option in self._options.values())

    def __contains__(self, name: str) -> bool:
        return self._normalize_name(name) in self._options

    def items(self) -> Iterable[tuple[str, Any]]:
        """Names and values, in the order of definition."""
        return [(option.name, option.value()) for option in self._options.values()]

    def as_dict(self) -> dict[str, Any]:
        """Names and values of all options."""
        return dict(self.items())

    def groups(self) -> set[str]:
        """The names of all groups."""
        return {option.group_name for option in self._options.values()}

    def group_dict(self, group: str) -> dict[str, Any]:
        """Names and values of one group (of all options if ``group`` is empty).

        Of use for settings: ``Application(handlers, **options.group_dict("application"))``.
        """
        return {o.name: o.value() for o in self._options.values() if not group or o.group_name == group}

    def define(
        self,
        name: str,
        default: Any = None,
        type: type | None = None,  # noqa: A002
        help: str | None = None,  # noqa: A002
        metavar: str | None = None,
        multiple: bool = False,
        group: str | None = None,
        callback: Callable[[Any], None] | None = None,
    ) -> None:
        """Define an option.

        :param type: `str`, `int`, `float`, `bool`, `~datetime.datetime`, `~datetime.timedelta`, or a class
            that makes a value from its text. By default the type of ``default``, else `str`.
        :param help: what it is for.
        :param metavar: what stands for the value in the help: ``--name=METAVAR``.
        :param multiple: the value is a list of ``type``; on the command line separated by commas, with
            ``1:5`` for the integers 1 to 5.
        :param group: the group it belongs to; by default the file that defines it.
        :param callback: called with every new value. A ``--config`` option whose callback is
            ``parse_config_file(path, final=False)`` reads a file just when it is met.
        :raises Error: if the name is taken.
        """
        normalized = self._normalize_name(name)
        if normalized in self._options:
            where = self._options[normalized].file_name or "cycloneish.options"
            raise Error(f"Option {normalized!r} already defined in {where}")
        frame = sys._getframe(1)
        own_file = sys._getframe(0).f_code.co_filename
        if frame.f_back and frame.f_code.co_filename == own_file and frame.f_code.co_name == "define":
            frame = frame.f_back
        file_name = frame.f_code.co_filename
        if file_name == own_file:
            file_name = ""
        if type is None:
            type = str if default is None or multiple else default.__class__  # noqa: A001
        self._options[normalized] = _Option(
            name, type, default, multiple, help, metavar, file_name, group or file_name, callback
        )

    def parse_command_line(self, args: list[str] | None = None, final: bool = True) -> list[str]:
        """Set options from a command line of ``--name=value``; ``--name`` alone sets a bool to True.

        :param args: by default `sys.argv`; the first is the program and is left out.
        :param final: run the parse callbacks. False when more is to be parsed.
        :returns: what follows the options.
        :raises Error: for an unknown option (after printing the help), or one without its value.
        """
        if args is None:
            args = sys.argv
        remaining: list[str] = []
        for index, arg in enumerate(args[1:], 1):
            if not arg.startswith("-"):
                remaining = args[index:]
                break
            if arg == "--":
                remaining = args[index + 1 :]
                break
            name, equals, value = arg.lstrip("-").partition("=")
            option = self._options.get(self._normalize_name(name))
            if option is None:
                self.print_help()
                raise Error(f"Unrecognized command line option: {name!r}")
            if not equals:
                if option.type is not bool:
                    raise Error(f"Option {name!r} requires a value")
                value = "true"
            option.parse(value)
        if final:
            self.run_parse_callbacks()
        return remaining

    def parse_config_file(self, path: str, final: bool = True) -> None:
        """Set options from a file of Python code, whose global names are the options' names.

        :param path: the file, in UTF-8. It is executed, so it has to be trusted. ``__file__`` in it is its
            own absolute path.
        :param final: run the parse callbacks. False when more is to be parsed.
        :raises Error: for a value that the option cannot have.

        A string is parsed as on the command line where the option is of another type. Names that are no
        option are left alone: the file may import and compute.
        """
        config: dict[str, Any] = {"__file__": os.path.abspath(path)}
        with open(path, "rb") as file:
            exec_in(native_str(file.read()), config, config)
        for name, value in config.items():
            option = self._options.get(self._normalize_name(name))
            if option is None:
                continue
            if isinstance(value, str) and (option.type is not str or option.multiple):
                option.parse(value)
            else:
                option.set(value)
        if final:
            self.run_parse_callbacks()

    def print_help(self, file: TextIO | None = None) -> None:
        """Print all options with their help, by group, to ``file`` or stderr."""
        groups: dict[str, list[_Option]] = {}
        for option in self._options.values():
            groups.setdefault(option.group_name, []).append(option)
        lines = [f"Usage: {sys.argv[0]} [OPTIONS]", "", "Options:", ""]
        for group, members in sorted(groups.items()):
            if group:
                lines += ["", f"{os.path.normpath(group)} options:", ""]
            for option in sorted(members, key=lambda member: member.name):
                lines += self._help_lines(option)
        print(*lines, "", sep="\n", file=sys.stderr if file is None else file)

    def _help_lines(self, option: _Option) -> list[str]:
        head = self._normalize_name(option.name)
        if option.metavar:
            head += "=" + option.metavar
        text = option.help or ""
        if option.default is not None and option.default != "":
            text += f" (default {option.default})"
        wrapped = textwrap.wrap(text, 44) or [""]
        if len(head) > 30:
            wrapped.insert(0, "")
        first, *others = wrapped
        return [f"  --{head:<30} {first}".rstrip(), *(" " * 35 + line for line in others)]

    def _help_callback(self, value: bool) -> None:
        if value:
            self.print_help()
            sys.exit(0)

    def add_parse_callback(self, callback: Callable[[], None]) -> None:
        """Have ``callback`` called, without arguments, after every final parse."""
        self._parse_callbacks.append(callback)

    def run_parse_callbacks(self) -> None:
        """Call the parse callbacks, in the order they were added."""
        for callback in self._parse_callbacks:
            callback()

    def mockable(self) -> _Mockable:
        """A stand-in on which `unittest.mock.patch.object` can set an option for a while.

        Example::

            with mock.patch.object(options.mockable(), "port", 0):
                assert options.port == 0
        """
        return _Mockable(self)


class _Mockable:
    """Sets options as attributes, and puts the former value back when the attribute is deleted.

    Deleting is how `unittest.mock.patch` undoes setting an attribute that it does not find in ``__dict__``.
    """

    _parser: OptionParser
    _former: dict[str, Any]

    def __init__(self, parser: OptionParser) -> None:
        self.__dict__["_parser"] = parser
        self.__dict__["_former"] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._parser, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self._former:
            raise RuntimeError(f"{name!r} is patched already; take a new mockable() for each patch")
        self._former[name] = getattr(self._parser, name)
        setattr(self._parser, name, value)

    def __delattr__(self, name: str) -> None:
        setattr(self._parser, name, self._former.pop(name))


#: The program's options, as attributes.
options = OptionParser()


def define(
    name: str,
    default: Any = None,
    type: type | None = None,  # noqa: A002
    help: str | None = None,  # noqa: A002
    metavar: str | None = None,
    multiple: bool = False,
    group: str | None = None,
    callback: Callable[[Any], None] | None = None,
) -> None:
    """`OptionParser.define` on the global `options`."""
    options.define(name, default, type, help, metavar, multiple, group, callback)


def parse_command_line(args: list[str] | None = None, final: bool = True) -> list[str]:
    """`OptionParser.parse_command_line` on the global `options`."""
    return options.parse_command_line(args, final)


def parse_config_file(path: str, final: bool = True) -> None:
    """`OptionParser.parse_config_file` on the global `options`."""
    options.parse_config_file(path, final)


def print_help(file: TextIO | None = None) -> None:
    """`OptionParser.print_help` on the global `options`."""
    options.print_help(file)


def add_parse_callback(callback: Callable[[], None]) -> None:
    """`OptionParser.add_parse_callback` on the global `options`."""
    options.add_parse_callback(callback)


set_global_options(options)
define_logging_options(options)
