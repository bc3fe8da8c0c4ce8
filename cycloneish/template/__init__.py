"""The template language of Tornado 6.6, compiled to Python.

A template is text with three kinds of tags::

    <title>{{ title }}</title>
    {# not in the output #}
    {% for student in students %}
      <li>{{ student.name }}</li>
    {% end %}

``{{ expression }}``
    The value of any Python expression, escaped by the ``autoescape`` function. ``str``, ``bytes`` (UTF-8) and
    anything that ``str()`` takes.
``{% raw expression %}``
    The same, never escaped.
``{% if %}``, ``{% for %}``, ``{% while %}``, ``{% try %}``
    As in Python, with ``{% else %}`` and the like, ``{% break %}`` and ``{% continue %}``; ``{% end %}`` ends
    them.
``{% set x = expression %}``, ``{% import module %}``, ``{% from module import name %}``
    A Python statement.
``{% extends "base.html" %}``, ``{% block name %}...{% end %}``
    Inherit from another template and replace its blocks. What stands outside of blocks is ignored then.
``{% include "part.html" %}``
    Another template in this place, with this place's variables.
``{% module Name(arguments) %}``
    A UI module of the application (:class:`cycloneish.web.UIModule`).
``{% apply function %}...{% end %}``
    What is between goes through a function, which is given bytes.
``{% autoescape function %}``
    The escaping function for the whole file; ``None`` for none.
``{% whitespace mode %}``
    From here on keep ``all`` white space, make each run of it ``single``, or the text ``oneline``.
``{% comment ... %}``, ``{# ... #}``
    Not in the output.
``{{!``, ``{%!``, ``{#!``
    ``{{``, ``{%`` and ``{#`` themselves.

Names that begin with ``_tt_`` are reserved. Templates run as Python in the server: only trusted people may
write them.

An exception in a template shows the template's own file, line and text in its traceback, with a frame for
every include and block on the way. Mistakes found while compiling are :exc:`ParseError` with file and line.
"""

from __future__ import annotations

from cycloneish.template.core import BaseLoader, DictLoader, Loader, Template
from cycloneish.template.nodes import ParseError, TemplateError, TemplateSyntaxError
from cycloneish.template.parser import filter_whitespace

__all__ = [
    "BaseLoader",
    "DictLoader",
    "Loader",
    "ParseError",
    "Template",
    "TemplateError",
    "TemplateSyntaxError",
    "filter_whitespace",
]
