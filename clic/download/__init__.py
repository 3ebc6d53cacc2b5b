"""Files from http(s) servers: resumed, checked, and under their name only when whole."""

from clic.download.connection import RefusedError
from clic.download.fetching import download, file_sha256

__all__ = ["RefusedError", "download", "file_sha256"]
