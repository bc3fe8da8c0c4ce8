"""The wire engines: HTTP/1.1, its limits, compressed and streamed bodies. They know no handler."""
