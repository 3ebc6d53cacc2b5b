"""A benchmark's files: where they come from, fetched, checked and unpacked.

In: a benchmark and a data root. Out: files below the root, and a manifest of what was fetched.
Read `file_sources`, `fetching`, `unpacking`, `manifest`.
"""
