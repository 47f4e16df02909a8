"""Reading label files: JSON with a reason for every refusal, and the search for files in given sources."""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from semiseg.data.picture_files import BadFileError
from semiseg.errors import UserError
from semiseg.labels.label_record import Findings
from semiseg.splits.lists import shown

SIGNS = {
    "labelme": {"shapes", "imagePath"},
    "coco": {"images", "annotations", "categories"},
    "cityscapes": {"imgHeight", "objects"},
    "coco's panoptic kind, which is not read": {"images", "annotations"},
}
"""Keys by which a JSON file of another format is known."""


def load_json(path: Path) -> Any:
    """Return the content of a JSON file, with or without a byte-order mark.

    Raises:
        BadFileError: missing, or no JSON.
    """
    try:
        return json.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise BadFileError(path, f"cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise BadFileError(path, f"no JSON ({error}): damaged or cut off") from error


def files_of(sources: Iterable[Path], pattern: str, what: str) -> list[Path]:
    """Return the given files, and those in given folders and below whose names match a pattern; hidden ones are not.

    Args:
        sources: files and folders.
        pattern: pattern of names, for example "*.json".
        what: name of the files, for the message.

    Raises:
        UserError: a source does not exist, or holds no such file.
    """
    found: list[Path] = []
    for source in sources:
        if not source.exists():
            raise UserError(f"{source} does not exist; expected {what}, or a folder with such files")
        below = [source] if source.is_file() else _below(source, pattern)
        if not below:
            held = sorted({path.suffix.lower() or path.name for path in _below(source, "*")})
            there = f"its files end in {', '.join(held[:8])}" if held else "it is empty"
            raise UserError(f"{source} holds no {pattern}; expected {what}, but {there}")
        found += below
    return found


def _below(folder: Path, pattern: str) -> list[Path]:
    paths = (path for path in folder.rglob(pattern) if path.is_file())
    return sorted(
        path for path in paths if not any(p.startswith(".") for p in path.relative_to(folder).parts)
    )


def mapping_of(content: Any, keys: Sequence[str], path: Path, tool: str) -> dict[str, Any]:
    """Return the content of a JSON file if it is an object with these keys.

    Raises:
        BadFileError: it is not; the reason says what the file looks like instead.
    """
    if isinstance(content, dict) and all(key in content for key in keys):
        return content
    if isinstance(content, dict):
        like = next((name for name, marks in SIGNS.items() if marks <= content.keys()), None)
        held = f"it has {shown(sorted(map(str, content)), 8) or 'no keys'}"
        held += f", as files of {like} have" if like else ""
    else:
        held = f"it is a list of {len(content)}" if isinstance(content, list) else "it is a single value"
    raise BadFileError(path, f"no file of {tool}: expected an object with {', '.join(keys)}, but {held}")


def each_readable(paths: Iterable[Path], read: Callable[[Path], None], found: Findings) -> None:
    """Call a reader with each file; faults are recorded, and the next file is read."""
    for path in paths:
        try:
            read(path)
        except BadFileError as error:
            found.fault(path.stem, error.file, error.reason)
        except OSError as error:
            found.fault(path.stem, path, f"cannot be read ({error.strerror or error})")
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            text = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
            found.fault(path.stem, path, f"not as expected: {text}")
