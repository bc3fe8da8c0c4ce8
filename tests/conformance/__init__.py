"""Tornado's own test suite, out of the installed ``tornado`` wheel and unchanged, run against cycloneish.

``python -m tests.conformance`` runs it and compares with ``expected.json``; see ``docs/conformance.md``.
"""
