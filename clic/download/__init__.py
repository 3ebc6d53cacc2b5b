"""Files from http(s) servers: resumed, checked, and under their name only when whole."""

from clic.download.fetching import download, file_sha256

__all__ = ["download", "file_sha256"]
