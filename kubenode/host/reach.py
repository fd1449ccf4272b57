"""Says whether something outside answers at all, for `doctor`: nothing is read and nothing trusted."""

import re
import socket
from pathlib import Path
from urllib.parse import unquote, urlsplit

import httpx

SECONDS = 10.0
"""How long an answer may take."""


def connection(host: str, port: int) -> str:
    """Return why no TCP connection comes to be, an empty text when one does."""
    try:
        with socket.create_connection((host, port), timeout=SECONDS):
            return ""
    except (OSError, UnicodeError) as error:
        return _said(error)


def store(url: str) -> str:
    """Return why an image store cannot be asked, an empty text when it answers, with whatever status.

    `url` is http://, https:// or file://; a folder on this machine has to be there.
    """
    parts = urlsplit(url)
    if parts.scheme == "file":
        folder = Path(unquote(parts.path))
        return "" if folder.is_dir() else f"there is no folder {folder}"
    try:
        httpx.head(url, timeout=SECONDS)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, OSError) as error:
        return _said(error)
    return ""


def _said(error: Exception) -> str:
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return re.sub(r"^\[Errno -?\d+\] ", "", str(said).splitlines()[0])[:200]
