"""Archives as label tools export them, unpacked for the moment."""

import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from semiseg.errors import UserError


@contextmanager
def unpacked(sources: Sequence[Path]) -> Iterator[tuple[list[Path], Path | None]]:
    """Unpack the sources that are ZIP archives into a folder that is removed at the end of the block.

    Args:
        sources: files and folders.

    Yields:
        The sources with folders in the place of archives, and the folder that these lie in; ``None`` without archives.

    Raises:
        UserError: an archive is damaged.
    """
    if not any(_is_archive(source) for source in sources):
        yield list(sources), None
        return
    with tempfile.TemporaryDirectory(prefix="semiseg-labels-") as place:
        folder = Path(place)
        yield [_unpack(source, folder) if _is_archive(source) else source for source in sources], folder


def _is_archive(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() == ".zip"


def _unpack(path: Path, place: Path) -> Path:
    target = place / path.stem
    try:
        with zipfile.ZipFile(path) as archive:
            archive.extractall(target)
    except (zipfile.BadZipFile, OSError, RuntimeError, EOFError) as error:
        raise UserError(f"{path} cannot be unpacked ({error})") from error
    return target
