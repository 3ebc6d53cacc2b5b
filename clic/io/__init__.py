"""Files, locks, downloads, processes, the CPU and the terminal, for every part of clic.

In: paths, addresses and tasks. Out: files that are whole or absent. Read `files` and `locks` first,
then `http_connection`, `download` and `stream_reader`, and last `processes` and `terminal`.
"""
