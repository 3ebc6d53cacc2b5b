"""Tools for existing shards: tags, checks, contact sheets and nearest images.

In: shards. Out: files beside them, findings or pictures. Each file does the work of one `clic-data`
command, so read them in any order.
"""
