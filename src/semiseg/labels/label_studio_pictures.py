"""Names of pictures in Label Studio's tasks."""

import re
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from semiseg.splits.lists import IMAGE_SUFFIXES

UPLOAD = re.compile(r"[0-9a-f]{8}-(?=.)")
"""What Label Studio puts before the names of uploaded files."""


def picture_names(task: dict[str, Any]) -> tuple[str, ...] | None:
    """Return the names that the picture of a task may have: its path, then without the mark of an upload.

    ``None`` where the task names no picture.
    """
    data = task.get("data", task)
    values = [value for value in data.values() if isinstance(value, str)] if isinstance(data, dict) else []
    paths = [path for value in values if (path := _path(value)).suffix.lower() in IMAGE_SUFFIXES]
    if not paths:
        return None
    path = paths[0]
    plain = path.with_name(UPLOAD.sub("", path.name, count=1))
    return tuple(dict.fromkeys((str(path), str(plain))))


def uploaded_name(task: dict[str, Any]) -> str | None:
    """Return the name of an uploaded picture without the mark; ``None`` where it was not uploaded."""
    names = picture_names(task) or ()
    return PurePosixPath(names[1]).name if len(names) > 1 else None


def _path(value: str) -> PurePosixPath:
    """Path that a URL, a cloud address or a file name means; that of local files stands behind ``?d=``."""
    try:
        parts = urlsplit(value)
    except ValueError:
        return PurePosixPath(value)
    local = parse_qs(parts.query).get("d")
    text = local[0] if local else unquote(parts.path if parts.scheme or value.startswith("/") else value)
    return PurePosixPath(text.lstrip("/"))
