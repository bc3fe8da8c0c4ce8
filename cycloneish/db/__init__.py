"""PostgreSQL that never blocks the reactor.

:mod:`cycloneish.db.postgres` has the connection pool, :mod:`cycloneish.db.embedded` a private
PostgreSQL server for a directory, :mod:`cycloneish.db.urls` opens either from a URL, and
:mod:`cycloneish.db.errors` what can go wrong.  This package loads none of them: the driver is only
imported by programs that use it.
"""
