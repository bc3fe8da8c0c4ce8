"""``cycloneish migrate-imports``: rewrites the imports of a program written for Tornado or Cyclone.

:mod:`~cycloneish.migration.names` says what becomes of which module, :mod:`~cycloneish.migration.rewrite`
changes one source text (it needs ``cycloneish[migrate]``), :mod:`~cycloneish.migration.command` goes through
files and is what the command line calls.
"""
