"""The formats of label files, with what they mean where a file does not say it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from semiseg.labels.cityscapes_polygons import read_cityscapes, write_cityscapes
from semiseg.labels.coco_json import read_coco, write_coco
from semiseg.labels.cvat_xml import read_cvat, write_cvat
from semiseg.labels.label_record import Findings, LabelSet, Order
from semiseg.labels.label_studio_json import read_label_studio, write_label_studio
from semiseg.labels.labelme_json import read_labelme, write_labelme
from semiseg.labels.mask_shapes import MaskedPicture, Writing
from semiseg.labels.voc_folder import read_voc, write_voc
from semiseg.labels.yolo_text import read_yolo, write_yolo


@dataclass(frozen=True)
class LabelFormat:
    """A format.

    Args:
        read: function that reads sources.
        write: function that writes into a folder.
        about: its files, for the help.
        order: what is painted over what, see ``Painting``.
        covers_all: whether what no shape covers is not labeled instead of the background.
        masks: whether it holds masks of pixels.
        outlines: whether it holds outlines.
        outlines_first: whether outlines are written where both are possible.
    """

    read: Callable[[Sequence[Path], Findings], LabelSet]
    write: Callable[[Path, Writing, Iterable[MaskedPicture]], None]
    about: str
    order: Order = "file"
    covers_all: bool = False
    masks: bool = True
    outlines: bool = True
    outlines_first: bool = False


FORMATS: Mapping[str, LabelFormat] = {
    "coco": LabelFormat(read_coco, write_coco, "JSON of instances", order="area"),
    "labelme": LabelFormat(read_labelme, write_labelme, "JSON, one a picture", outlines_first=True),
    "cvat": LabelFormat(read_cvat, write_cvat, 'XML "for images 1.1"', order="layer"),
    "label-studio": LabelFormat(read_label_studio, write_label_studio, "JSON of tasks"),
    "voc": LabelFormat(
        read_voc, write_voc, 'masks; also "Segmentation mask 1.1" of CVAT', covers_all=True, outlines=False
    ),
    "yolo": LabelFormat(read_yolo, write_yolo, "text files and data.yaml", order="area", masks=False),
    "cityscapes": LabelFormat(
        read_cityscapes, write_cityscapes, "JSON of polygons, one a picture", covers_all=True, masks=False
    ),
}
