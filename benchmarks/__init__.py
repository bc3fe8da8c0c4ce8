"""Side-by-side speed measurements of cycloneish and its peers; run with ``python -m benchmarks``."""
