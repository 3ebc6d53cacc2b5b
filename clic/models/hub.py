"""The Hugging Face hub, where it cannot be reached: what is on disk is used at once."""

from __future__ import annotations

import os
import socket
import sys
from urllib.parse import urlsplit
from urllib.request import getproxies

OFFLINE = "HF_HUB_OFFLINE"
ENDPOINT = "HF_ENDPOINT"
SECONDS = 3.0


def go_offline_if_unreachable() -> None:
    """Set HF_HUB_OFFLINE where the hub's host does not answer, before its client is imported.

    The client would otherwise try for about a minute before it looks at what was downloaded
    earlier, or gives up. Nothing is done where the variable is set, where a proxy stands between,
    or where the client was imported already and has read its settings.
    """
    if OFFLINE in os.environ or getproxies() or "huggingface_hub.constants" in sys.modules:
        return
    address = urlsplit(os.environ.get(ENDPOINT) or "https://huggingface.co")
    port = address.port or (80 if address.scheme == "http" else 443)
    try:
        socket.create_connection((address.hostname or "", port), timeout=SECONDS).close()
    except OSError:
        os.environ[OFFLINE] = "1"
        print(
            f"{address.hostname} cannot be reached, so only models on this disk are looked for "
            f"({OFFLINE}=1)",
            file=sys.stderr,
        )
