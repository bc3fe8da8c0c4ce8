"""The Autobahn testsuite against this package's WebSockets; see `__main__`."""
