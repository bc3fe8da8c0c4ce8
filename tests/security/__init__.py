"""Attacks, one file for each group, sent to a real server on 127.0.0.1 where bytes matter.

The numbers in the docstrings are those of the groups' checklist; ``docs/guides/security.md`` says what is
refused and why. :mod:`tests.security.support` has the server, the raw client and the log that all of them
share.
"""
