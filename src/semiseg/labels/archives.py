"""Archives as label tools export them, unpacked for the moment."""

import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from semiseg.errors import UserError


@dataclass(frozen=True)
class Unpacked:
    """Sources without archives.

    Args:
        paths: the sources, with folders in the place of archives.
        folder: folder that these lie in; ``None`` without archives.
        archives: archive of each such folder.
    """

    paths: Sequence[Path]
    folder: Path | None = None
    archives: Mapping[Path, Path] = field(default_factory=dict)

    def named(self, text: str) -> str:
        """Return a message in which files lie in their archives."""
        for folder, archive in self.archives.items():
            text = text.replace(str(folder), str(archive))
        return text


@contextmanager
def unpacked(sources: Sequence[Path]) -> Iterator[Unpacked]:
    """Unpack the sources that are ZIP archives into a folder that is removed at the end of the block.

    Args:
        sources: files and folders.

    Raises:
        UserError: an archive is damaged; or what the block raises, with the names of archives in it.
    """
    archives = [source for source in sources if source.is_file() and source.suffix.lower() == ".zip"]
    if not archives:
        yield Unpacked(sources)
        return
    with tempfile.TemporaryDirectory(prefix="semiseg-labels-") as place:
        folders = {archive: Path(place, str(number), archive.stem) for number, archive in enumerate(archives)}
        for archive, folder in folders.items():
            _unpack(archive, folder)
        paths = [folders.get(source, source) for source in sources]
        result = Unpacked(paths, Path(place), {folder: archive for archive, folder in folders.items()})
        try:
            yield result
        except UserError as error:
            raise UserError(result.named(str(error))) from error


def _unpack(path: Path, target: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            archive.extractall(target)
    except (zipfile.BadZipFile, OSError, RuntimeError, EOFError) as error:
        raise UserError(f"{path} cannot be unpacked ({error})") from error
