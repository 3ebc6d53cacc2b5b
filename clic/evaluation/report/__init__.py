"""The results of an evaluation as tables, files, pages and comparisons.

In: scored benchmarks. Out: terminal tables, JSON, CSV, Markdown, LaTeX and HTML. Read `report`,
`paired_rows` and `comparison` (differences with intervals), `score_table` (what every output
shows), then the outputs `terminal_tables`, `formats`, `html_page` with `page.html`, and
`result_files`, which writes and reads them. `alpha_sweep` and `listing` stand alone.
"""
