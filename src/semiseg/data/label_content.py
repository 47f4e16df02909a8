"""Labels in the masks of a split: their pixels, and the refusal of those that no result can come from."""

from collections.abc import Mapping, Sequence

from semiseg.contracts.dataset import SegDataset, Split
from semiseg.data.hidden_class import hidden_class, setting_for_255, transparent_class
from semiseg.data.picture_facts import PictureFacts
from semiseg.errors import UserError
from semiseg.splits.lists import shown

WORDS = {"labeled": "labeled", "unlabeled": "unlabeled", "val": "validation", "test": "test"}
"""Kinds of images in sentences."""


def kinds_of_images(split: Split) -> dict[str, tuple[str, ...]]:
    """Return the ids of a split by kind; an image that is labeled is not among the unlabeled ones."""
    return {
        "labeled": split.labeled,
        "unlabeled": split.never_labeled,
        "val": split.val,
        "test": split.test,
    }


def label_pixels(facts: Mapping[str, PictureFacts], ids: Sequence[str]) -> dict[int, int]:
    """Return the number of pixels of each label value in the masks of some images."""
    found: dict[int, int] = {}
    for image_id in ids:
        for label, count in ((facts[image_id].counts if image_id in facts else None) or {}).items():
            found[label] = found.get(label, 0) + count
    return found


def require_labels(
    dataset: SegDataset,
    split: Split,
    counted: Mapping[str, Mapping[int, int]],
    facts: Mapping[str, PictureFacts],
) -> None:
    """Refuse data of which nothing can be learned, or on which nothing can be measured.

    Args:
        dataset: dataset of the split.
        split: the split.
        counted: number of pixels of each label value, by kind of images: "labeled" and "val".
        facts: facts about the images of the split and their masks.

    Raises:
        UserError: no labeled or no validation image has a labeled pixel, all labeled pixels are of one class, or
            255 or what is transparent is likely a class.
    """
    info, faults = dataset.info, []
    for kind in ("labeled", "val"):
        pixels, ids = counted[kind], kinds_of_images(split)[kind]
        if ids and pixels and not pixels.keys() - {info.ignore_index}:
            faults.append(
                f"no {WORDS[kind]} image of split {split.name} has a labeled pixel: "
                f"{'its mask is' if len(ids) == 1 else f'all {len(ids):,} masks are'} "
                f'{info.ignore_index} ("not labeled") throughout, for example that of {ids[0]}. '
                "Label some pixels first; if 255 is a class in your masks, name it in dataset.values"
            )
    present = sorted(counted["labeled"].keys() - {info.ignore_index})
    if len(present) == 1 and not faults:
        reason = transparent_class(dataset, split, facts)
        faults.append(reason or _one_class(dataset, split, present[0], counted))
    if not faults and (reason := hidden_class(dataset, split, facts)):
        faults.append(reason)
    if faults:
        raise UserError("\n".join(faults))


def _one_class(
    dataset: SegDataset, split: Split, label: int, counted: Mapping[str, Mapping[int, int]]
) -> str:
    info, pixels = dataset.info, counted["labeled"]
    others = [name for index, name in enumerate(info.classes) if index != label]
    void = pixels.get(info.ignore_index, 0) / sum(pixels.values())
    text = (
        f"no labeled pixel of split {split.name} shows {shown(others)}: all are {info.classes[label]}, so that a "
        "network that answers nothing else has no loss"
    )
    if void:
        text += (
            f', while {void:.2%} of the pixels of the labeled masks are {info.ignore_index} ("not labeled")'
        )
    cure = setting_for_255(dataset) if void and others == [info.classes[-1]] else None
    if cure:
        return f"{text}. If 255 means {info.classes[-1]} in your masks, add {cure}"
    if any(label in counted["val"] for label in range(info.num_classes) if info.classes[label] in others):
        return f"{text}. Validation masks show others: label more images, or other ones (split, split_id)"
    return f"{text}. dataset.values names the value of each class in the masks"
