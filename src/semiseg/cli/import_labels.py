"""``semiseg import``: masks and a dataset config from the files of a labeling tool."""

import argparse
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from semiseg.cli.arguments import Parser
from semiseg.cli.init import dataset_name, draft_config, next_steps, share_or_name
from semiseg.data.file_faults import BadFilesError
from semiseg.errors import UserError
from semiseg.files import require_writable, temporary, write_text, writes
from semiseg.labels.archives import unpacked
from semiseg.labels.image_places import ImagePlaces, PlacedPicture, common_folder, placed
from semiseg.labels.label_formats import FORMATS, LabelFormat
from semiseg.labels.label_record import Findings, LabelSet, Part
from semiseg.labels.mask_writing import BACKGROUND, BACKGROUNDS, ChosenClasses, choose_classes, write_masks
from semiseg.progress_bar import progress
from semiseg.splits.lists import shown
