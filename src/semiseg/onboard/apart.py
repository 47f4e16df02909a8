"""Drawing of validation images so that copies of a picture, and images of a group, stay on one side."""

from dataclasses import replace

from semiseg.data.file_faults import CheckReport, for_split
from semiseg.data.folder import Folder
from semiseg.data.image_groups import draw_share, joined
from semiseg.data.picture_pairs import picture_pairs
from semiseg.errors import UserError
from semiseg.splits.lists import shown

SHOWN_PAIRS = 3


def drawn_apart(dataset: Folder, report: CheckReport, share: float) -> tuple[CheckReport, list[str]]:
    """Draw the validation images anew where labeled images show the same, so that these stay on one side.

    Args:
        dataset: dataset whose validation images are a share of the labeled ones.
        report: check of all its files.
        share: this share.

    Returns:
        The check with the images on their sides, and notes about what was joined. Without any equal or nearly equal
        pictures the images stay as the dataset drew them.
    """
    split = report.split
    pool = sorted((*split.labeled, *split.val))
    pairs = [each for each in picture_pairs(report.facts, pool, pool) if each.first < each.second]
    if not pairs:
        return report, []
    known = {image_id: group for image_id in pool if (group := dataset.group(image_id)) is not None}
    units = joined(known, ((each.first, each.second) for each in pairs))
    equal = sum(each.equal for each in pairs)
    counts = [f"{equal:,} equal", f"{len(pairs) - equal:,} nearly equal"]
    words = " and ".join(
        text for text, count in zip(counts, (equal, len(pairs) - equal), strict=True) if count
    )
    examples = shown((f"{each.first} and {each.second}" for each in pairs), SHOWN_PAIRS)
    note = f"labeled images show the same, {words} pairs: {examples}"
    try:
        val = set(draw_share(pool, share, units))
    except UserError:
        return report, [f"{note}; all hang together, so that they are on both sides of the validation images"]
    moved = replace(
        split,
        labeled=tuple(each for each in pool if each not in val),
        val=tuple(each for each in pool if each in val),
    )
    return for_split(dataset.info, report, moved), [f"{note}; such images are kept on one side"]
