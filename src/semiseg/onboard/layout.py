"""Layout of a dataset: its folders and names as settings, and what a person has given of them."""

import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from semiseg.data.folder_files import FolderFiles, NameEnds, find_files
from semiseg.splits.lists import IMAGE_SUFFIXES


@dataclass(frozen=True)
class Layout:
    """Folders and names of images and masks, as settings of the dataset ``folder``.

    Args:
        images: folder of the images below the dataset's.
        masks: folder of the masks below the dataset's.
        image_suffix: ending of an image's name after its id.
        mask_suffix: ending of a mask's name after its id.
        image_prefix: beginning of an image's name before its id.
        mask_prefix: beginning of a mask's name before its id.
        pairs: lists of images and their masks, in place of ``masks``.
        leave_out: paths of files that are no images.
    """

    images: str
    masks: str
    image_suffix: str = ""
    mask_suffix: str = ""
    image_prefix: str = ""
    mask_prefix: str = ""
    pairs: tuple[str, ...] = ()
    leave_out: tuple[str, ...] = ()

    @property
    def image_ends(self) -> NameEnds:
        """What the names of images begin and end with."""
        return NameEnds(self.image_prefix, self.image_suffix)

    @property
    def mask_ends(self) -> NameEnds:
        """What the names of masks begin and end with."""
        return NameEnds(self.mask_prefix, self.mask_suffix)

    def settings(self) -> dict[str, Any]:
        """The layout as arguments of ``Folder``; lists as plain lists."""
        values = {
            key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()
        }
        return {key: value for key, value in values.items() if key != "masks" or not self.pairs}

    def find(self, base: Path, suffixes: Sequence[str] = IMAGE_SUFFIXES) -> FolderFiles:
        """Search the files, images by their endings; raises ``UserError`` as ``find_files`` does."""
        return find_files(
            base,
            self.images,
            self.masks,
            self.image_ends,
            self.mask_ends,
            self.pairs,
            self.leave_out,
            suffixes,
        )

    def options(self) -> dict[str, str]:
        """The layout as options of the command, and their values."""
        if self.pairs:
            return {"--pairs": ",".join(self.pairs)}
        ends = {
            "--image-prefix": self.image_prefix,
            "--image-suffix": self.image_suffix,
            "--mask-prefix": self.mask_prefix,
            "--mask-suffix": self.mask_suffix,
        }
        return {"--images": self.images, "--masks": self.masks} | {
            key: end for key, end in ends.items() if end
        }

    def words(self, unlike: "Layout | None" = None) -> str:
        """The options as one types them; those alone that differ from another layout's, if one is given."""
        known = {} if unlike is None else unlike.options()
        chosen = {key: value for key, value in self.options().items() if known.get(key) != value}
        return " ".join(
            f"{key} {shlex.quote(value)}"
            if key in ("--images", "--masks", "--pairs")
            else f"{key}={shlex.quote(value)}"
            for key, value in (chosen or self.options()).items()
        )


@dataclass(frozen=True)
class KnownLayout:
    """Known settings of a layout, under the names of ``Layout``; ``None`` is to be found."""

    images: str | None = None
    masks: str | None = None
    image_suffix: str | None = None
    mask_suffix: str | None = None
    image_prefix: str | None = None
    mask_prefix: str | None = None
    pairs: tuple[str, ...] | None = None

    def admits(self, layout: Layout) -> bool:
        """Whether a layout has the known settings."""
        known = {key: value for key, value in asdict(self).items() if value is not None}
        return all(_plain(value) == _plain(getattr(layout, key)) for key, value in known.items())

    def below(self, base: Path) -> "KnownLayout":
        """Return the same with folders relative to the dataset's, and without needless parts such as "./"."""
        return KnownLayout(
            **{**asdict(self), "images": _below(self.images, base), "masks": _below(self.masks, base)}
        )


def _plain(value: Any) -> Any:
    return value.removeprefix("/") if isinstance(value, str) else value


def _below(given: str | None, base: Path) -> str | None:
    if given is None:
        return None
    path = Path(given).expanduser()
    inside = path.is_absolute() and path.is_relative_to(base)
    return PurePosixPath(path.relative_to(base) if inside else path).as_posix()
