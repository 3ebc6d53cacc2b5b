"""The benchmarks: each file declares its benchmarks and reads them.

In: a data root. Out: a table. Read `catalogue` (all of them by name), `benchmark` (the record), one
reader, e.g. `sugarcrepe`, and `reading`, the code that readers share.
"""
