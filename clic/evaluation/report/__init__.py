"""What came out of an evaluation, as tables, files, pages and comparisons.

In: scored benchmarks. Out: terminal tables, JSON, CSV, Markdown, LaTeX and HTML. Read `report`,
`score_lines`, then the writers (`terminal_tables`, `formats`, `html_page`, `output_files`), the
comparisons (`comparison`, `paired_rows`, `saved_results`), `alpha_sweep` and `listing`.
"""
