"""Gets a benchmark's files: finds, downloads, checks and unpacks them.

In: a benchmark and a data root. Out: files below the root, and a manifest of the downloads.
Read `file_sources`, `fetching`, `unpacking`.
"""
