"""Images that stand in label files, written as files of their own."""

from collections.abc import Iterable
from dataclasses import replace
from io import BytesIO
from pathlib import Path, PurePosixPath

from PIL import Image

from semiseg.files import replacing
from semiseg.labels.label_record import Findings, LabeledPicture

ENDINGS = {"JPEG": ".jpg", "PNG": ".png", "BMP": ".bmp", "WEBP": ".webp", "TIFF": ".tif"}


def extract(pictures: Iterable[LabeledPicture], folder: Path, found: Findings) -> list[LabeledPicture]:
    """Write the images that label files hold, byte by byte; pictures without one are left as they are.

    Args:
        pictures: the pictures.
        folder: existing folder; names are those of the label files. Equal files may be there.
        found: gets faults.
    """
    written = []
    for picture in pictures:
        if picture.embedded is not None:
            try:
                data = picture.embedded()
                with Image.open(BytesIO(data)) as image:
                    ending = ENDINGS.get(str(image.format), PurePosixPath(picture.file).suffix)
            except (OSError, ValueError, KeyError, TypeError) as error:
                found.fault(picture.file, picture.source, f"its imageData is no image ({error})")
                continue
            path = folder / f"{picture.source.stem}{ending}"
            if path.exists() and path.read_bytes() != data:
                found.fault(picture.file, picture.source, f"{path} is there already, and is another image")
                continue
            with replacing(path) as file:
                file.write(data)
            written.append(replace(picture, file=str(path)))
        else:
            written.append(picture)
    return written
