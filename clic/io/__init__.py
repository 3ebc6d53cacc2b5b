"""Files, locks, downloads, processes, the CPU and the terminal, as every part of clic uses them.

In: paths, addresses and tasks. Out: files that are whole or absent. Read `files` and `locks`
first, then `http_connection` and `download`, and last `processes` and `terminal`.
"""
