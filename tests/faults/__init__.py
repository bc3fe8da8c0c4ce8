"""Things break under load: in full by ``python -m tests.faults``, in small by the suite."""
