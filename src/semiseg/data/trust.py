"""What limits the meaning of a result, found before training: classes, labels, copies and groups of a split."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

from semiseg.contracts.dataset import DatasetInfo, Grouped, SegDataset, Split
from semiseg.contracts.score_names import segmentation_scores
from semiseg.data.file_faults import CheckReport
from semiseg.data.garbage import without_collection
from semiseg.data.hidden_class import setting_for_255
from semiseg.data.label_content import (
    WORDS,
    kinds_of_images,
    label_pixels,
    require_labels,
)
from semiseg.data.picture_facts import PictureFacts
from semiseg.data.picture_pairs import PicturePair, pairs_between, picture_group, usual_difference
from semiseg.settings import EvaluatorSettings
from semiseg.splits.lists import shown

TRAINED = ("labeled", "unlabeled")
MEASURED = ("val", "test")
USUAL = EvaluatorSettings()
SHOWN = 5
"""Examples that a sentence names."""


@dataclass(frozen=True)
class SharedPictures:
    """Images of one kind that show the same as images of another kind.

    Args:
        first: kind of the others: "labeled", "unlabeled" or "val".
        second: kind of the counted images: "unlabeled", "val" or "test".
        equal: number of images of the second kind with an equal one of the first.
        near: number of further ones with a nearly equal one.
        examples: pairs of ids, that of the first kind first.
    """

    first: str
    second: str
    equal: int
    near: int
    examples: tuple[tuple[str, str], ...]

    @property
    def leaks(self) -> bool:
        """Whether the counted images are measured on, and the others trained on."""
        return self.first in TRAINED and self.second in MEASURED


@dataclass(frozen=True)
class Trust:
    """What limits the meaning of a result.

    Args:
        missing_classes: names of the classes without a pixel in the masks of a kind of images, by kind.
        without_labels: ids of images without any labeled pixel, by kind.
        labeled_share: share of labeled pixels in the labeled images; ``None`` without any image.
        copies: kinds of images that show the same.
        shared_groups: number of images by kind, of each group that is in several kinds; labeled and unlabeled images
            count together as "train".
        without_group: number of images that ``dataset.groups`` gives no group.
        placeholder_names: whether class names are made up.
        skipped_files: number of bad files because of which images were left out.
        unmeasured: sentences about classes that no validation or test image holds.
        warnings: sentences about what else makes a score higher or lower than it should be.
        notes: sentences about what else should be known.
    """

    missing_classes: Mapping[str, tuple[str, ...]]
    without_labels: Mapping[str, tuple[str, ...]]
    labeled_share: float | None
    copies: tuple[SharedPictures, ...]
    shared_groups: Mapping[str, Mapping[str, int]]
    without_group: int
    placeholder_names: bool
    skipped_files: int
    unmeasured: tuple[str, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for ``summary.json``."""
        return asdict(self)


@without_collection()
def weigh(dataset: SegDataset, report: CheckReport, evaluator: EvaluatorSettings = USUAL) -> Trust:
    """Find what limits the meaning of a result on checked data.

    Args:
        dataset: dataset that the report is about.
        report: result of the check of its files.
        evaluator: settings by which classes without pixels count, for sentences.

    Raises:
        UserError: nothing can be learned or measured: no labeled or no validation image has a labeled pixel, all
            labeled pixels are of one class, or 255 is likely a class.
    """
    info, split, facts = dataset.info, report.split, report.facts
    counted = {
        kind: label_pixels(facts, ids) for kind, ids in kinds_of_images(split).items() if kind != "unlabeled"
    }
    require_labels(dataset, split, counted, facts)
    missing = {
        kind: tuple(name for label, name in enumerate(info.classes) if not pixels.get(label))
        for kind, pixels in counted.items()
        if pixels
    }
    bare = {
        kind: found
        for kind in counted
        if (found := _without_labels(facts, info, kinds_of_images(split)[kind]))
    }
    copies = tuple(_copies(facts, split))
    groups, without_group = _shared_groups(dataset, split)
    share = _labeled_share(counted["labeled"], info)
    placeholders = bool(getattr(info, "placeholder_names", False))
    warnings = [
        *_not_learned(dataset, split, missing, share != 1),
        *_label_warnings(bare, split),
        *(_copies_sentence(each, split) for each in copies if each.leaks),
        *_group_sentences(groups, trained=True),
    ]
    notes = [
        *_contradictions(facts, split),
        *(_copies_sentence(each, split) for each in copies if not each.leaks),
        *_group_sentences(groups, trained=False),
        *_other_notes(info, share, without_group, placeholders),
    ]
    return Trust(
        missing, bare, share, copies, groups, without_group, placeholders, len(report.skipped),
        tuple(_unmeasured(info, missing, evaluator)), tuple(warnings), tuple(notes),
    )  # fmt: skip


def _without_labels(
    facts: Mapping[str, PictureFacts], info: DatasetInfo, ids: Sequence[str]
) -> tuple[str, ...]:
    """Images whose mask has no labeled pixel."""
    counts = {image_id: facts[image_id].counts for image_id in ids if image_id in facts}
    return tuple(
        each for each, own in counts.items() if own is not None and not own.keys() - {info.ignore_index}
    )


def _labeled_share(pixels: Mapping[int, int], info: DatasetInfo) -> float | None:
    total = sum(pixels.values())
    return 1 - pixels.get(info.ignore_index, 0) / total if total else None


def _not_learned(
    dataset: SegDataset, split: Split, missing: Mapping[str, tuple[str, ...]], void: bool
) -> Iterator[str]:
    """Say which classes have no labeled pixel, and how that is cured where the last one may be read as void."""
    absent = missing.get("labeled")
    if not absent:
        return
    text = (
        f"no labeled image of split {split.name} (family {split.family}, id {split.split_id}) holds class "
        f"{', '.join(absent)}; it cannot be learned"
    )
    last = dataset.info.classes[-1]
    cure = (
        setting_for_255(dataset) if void and set(absent).intersection(*missing.values()) == {last} else None
    )
    yield text + (f". If 255 means {last} in your masks, add {cure}" if cure else "")


def _unmeasured(
    info: DatasetInfo, missing: Mapping[str, tuple[str, ...]], evaluator: EvaluatorSettings
) -> Iterator[str]:
    """Say which classes have no pixel to measure them on, and what that means for the score."""
    total, score = info.num_classes, segmentation_scores(evaluator).primary.name
    for kind in MEASURED:
        if absent := ", ".join(missing.get(kind, ())):
            counts = f"{score} is over {total - len(missing[kind])} of {total} classes"
            if info.label_of == "image":
                counts = "it has no score"
            elif evaluator.absent == "zero":
                counts = f"{score} counts it as 0"
            elif evaluator.absent == "skip":
                counts += ", and counts it as 0 once it is predicted"
            yield f"no {WORDS[kind]} image holds {absent}: {counts}"


def _label_warnings(bare: Mapping[str, tuple[str, ...]], split: Split) -> Iterator[str]:
    for kind, ids in bare.items():
        all_of = len(kinds_of_images(split)[kind])
        have = "has" if len(ids) == 1 else "have"
        yield f"{len(ids):,} of {all_of:,} {WORDS[kind]} images {have} no labeled pixel: {shown(ids, SHOWN)}"


def _copies(facts: Mapping[str, PictureFacts], split: Split) -> Iterator[SharedPictures]:
    """Count the images of each kind that show the same as those of another kind."""
    known = {kind: [each for each in ids if each in facts] for kind, ids in kinds_of_images(split).items()}
    groups = {kind: picture_group(facts, ids) for kind, ids in known.items() if ids}
    usual = usual_difference([each.small for each in facts.values()])
    for first, second in combinations(groups, 2):
        if pairs := pairs_between(groups[first], groups[second], usual):
            yield _counted(first, second, pairs)


def _counted(first: str, second: str, pairs: Sequence[PicturePair]) -> SharedPictures:
    best: dict[str, PicturePair] = {}
    for pair in pairs:  # equal ones come first
        best.setdefault(pair.second, pair)
    equal = sum(pair.equal for pair in best.values())
    examples = tuple((pair.first, pair.second) for pair in list(best.values())[:SHOWN])
    return SharedPictures(first, second, equal, len(best) - equal, examples)


def _copies_sentence(found: SharedPictures, split: Split) -> str:
    total = len(kinds_of_images(split)[found.second])
    count = found.equal + found.near
    like = (
        "equal to" if not found.near else "nearly equal to" if not found.equal else "equal or nearly equal to"
    )
    more = f" ({found.equal:,} equal, {found.near:,} nearly)" if found.equal and found.near else ""
    pairs = shown((f"{first} and {second}" for first, second in found.examples), SHOWN)
    rest = count - len(found.examples)
    return (
        f"{count:,} of {total:,} {WORDS[found.second]} images {'is' if count == 1 else 'are'} {like} "
        f"{WORDS[found.first]} ones{more}: {pairs}{f' and {rest:,} more' if rest else ''}"
    )


def _contradictions(facts: Mapping[str, PictureFacts], split: Split) -> Iterator[str]:
    """Say which equal labeled pictures have masks that differ."""
    first: dict[str, str] = {}
    found = []
    for image_id in (*split.labeled, *split.val, *split.test):
        if image_id in facts:
            other = first.setdefault(facts[image_id].picture, image_id)
            if facts[other].mask != facts[image_id].mask:
                found.append(f"{other} and {image_id}")
    if found:
        yield f"equal pictures have masks that differ: {shown(found, SHOWN)}"


def _shared_groups(dataset: SegDataset, split: Split) -> tuple[dict[str, dict[str, int]], int]:
    """Groups that are in more than one of train, val and test, and the number of images without group."""
    if not isinstance(dataset, Grouped):
        return {}, 0
    counts: dict[str, dict[str, int]] = {}
    alone = 0
    for kind, ids in (
        ("train", (*split.labeled, *split.never_labeled)),
        ("val", split.val),
        ("test", split.test),
    ):
        for image_id in ids:
            group = dataset.group(image_id)
            if group is None:
                alone += 1
            else:
                kinds = counts.setdefault(group, {})
                kinds[kind] = kinds.get(kind, 0) + 1
    return {group: kinds for group, kinds in sorted(counts.items()) if len(kinds) > 1}, alone if counts else 0


def _group_sentences(groups: Mapping[str, Mapping[str, int]], *, trained: bool) -> Iterator[str]:
    """Sentences about groups in train and elsewhere, or else in val and test alone."""
    found = [
        f"group {group} is in {' and '.join(f'{kind} ({count:,})' for kind, count in kinds.items())}"
        for group, kinds in groups.items()
        if ("train" in kinds) is trained
    ]
    if found:
        yield f"{'; '.join(found[:SHOWN])}{f' and {len(found) - SHOWN:,} more groups' if len(found) > SHOWN else ''}"


def _other_notes(
    info: DatasetInfo, share: float | None, without_group: int, placeholders: bool
) -> Iterator[str]:
    if share is not None and share < 1:
        yield f"{share:.1%} of the pixels of the labeled images are labeled"
    if without_group:
        yield f"{without_group:,} images have no group (dataset.groups); each counts as a group of its own"
    if placeholders:
        yield f"class names are placeholders: {shown(info.classes, SHOWN)}"
