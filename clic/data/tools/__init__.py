"""Tools for shards that exist: tags, checks, contact sheets and nearest images.

In: shards. Out: files beside them, findings or pictures. Each file is the working part of one
`clic-data` command: `annotating`, `verifying`, `contact_sheet`, `nearest`.
"""
