"""The folder that a report is written to: a report may replace a report, and nothing else."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from semiseg.errors import UserError, listed
from semiseg.files import read_json, remove_temporaries, write_json

MARK = "report.json"
"""Says that a folder was written by this command: by which words, and which figures are its own."""

FIGURES = "figures"


def claim(folder: Path, force: bool = False) -> None:
    """Make a folder, or take one that holds a report; the figures of the former report are removed.

    Args:
        folder: where the report goes.
        force: take a folder that holds something else too; files of other names are kept.

    Raises:
        UserError: the folder holds something else, or cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        former = _read_mark(folder)
        found = sorted(path.name for path in folder.iterdir())
        if found and former is None and not force:
            raise UserError(
                f"{folder} holds no report but other files ({listed(found[:5])}). Choose another folder with -o, or "
                "add --force to write into it."
            )
        for name in (former or {}).get("figures", ()):
            (folder / FIGURES / Path(str(name)).name).unlink(missing_ok=True)
        remove_temporaries(folder)
        mark(folder, "", ())
    except OSError as error:
        reason = "it is a file" if folder.is_file() else error.strerror
        raise UserError(f"{folder} cannot be written: {reason}. Choose another folder with -o.") from error


def mark(folder: Path, command: str, figures: Sequence[Path]) -> None:
    """Note that the folder holds a report.

    Args:
        folder: the folder.
        command: what was typed.
        figures: files in ``figures/`` that the next report may remove.
    """
    write_json(folder / MARK, {"command": command, "figures": [figure.name for figure in figures]})


def _read_mark(folder: Path) -> dict[str, Any] | None:
    try:
        found = read_json(folder / MARK)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and "figures" in found else None
