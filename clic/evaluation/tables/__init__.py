"""What a benchmark asks, as tables of cases over unique images and texts, and how it is scored.

In: features and a table. Out: numbers, rows' outcomes, margins and the worst failures. Read
`cases`, then `scoring` with `rules`, and last `margins` and `gallery`.
"""
