"""A look at a few masks of a published dataset, to tell which of several encodings its labels have."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from semiseg.data.mask_pixels import read_pixels
from semiseg.data.picture_files import BadFileError
from semiseg.splits.lists import spread

SAMPLES = 20
"""Number of masks that are looked at."""


def values_in(masks: Mapping[str, Path]) -> dict[int, Path]:
    """Return the values in some masks, each with one that holds it; files that cannot be read are left out.

    ``SAMPLES`` masks at even distances in the order of the ids are read. The check of all files names bad ones, and
    refuses values that are no class wherever they occur.
    """
    found: dict[int, Path] = {}
    ids = sorted(masks)
    for image_id in spread(ids, min(SAMPLES, len(ids))):
        try:
            codes = read_pixels(masks[image_id]).codes
        except BadFileError:
            continue
        for value in np.unique(codes).tolist():
            found.setdefault(value, masks[image_id])
    return found
