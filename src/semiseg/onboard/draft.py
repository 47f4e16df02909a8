"""Draft of a new dataset: its name, its config, and what is said about it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from semiseg.config.searchpath import conf_dir, is_shipped
from semiseg.contracts.dataset import DatasetInfo
from semiseg.data.file_faults import CheckReport, check_files
from semiseg.data.folder import Folder
from semiseg.data.folder_files import FolderFiles
from semiseg.data.trust import weigh
from semiseg.errors import UserError
from semiseg.files import write_text, writes
from semiseg.onboard.apart import drawn_apart
from semiseg.onboard.band_survey import BandStatistics, band_line
from semiseg.onboard.classes import Classes
from semiseg.onboard.describe import config_yaml, survey_report
from semiseg.onboard.layout import Layout
from semiseg.onboard.measure import Measures, measure
from semiseg.onboard.parts import ChosenParts
from semiseg.onboard.survey import Survey
from semiseg.output import collected_messages
from semiseg.progress_bar import progress
from semiseg.splits.split import make_split

ELSEWHERE = "Change to a folder that can be written, or make room, and start again there."


@dataclass(frozen=True)
class DatasetDraft:
    """A config that is to be written, and what the next steps depend on.

    Args:
        config: config of the dataset, as YAML.
        drawn: ids of validation images that are written to a list.
        made_up: whether the names of the classes are placeholders.
        measures: counts of the dataset.
        info: classes and channels.
    """

    config: str
    drawn: tuple[str, ...]
    made_up: bool
    measures: Measures
    info: DatasetInfo


def dataset_name(given: str | None, root: Path) -> str:
    """Return the name of a new dataset: as given, else that of its folder; raises ``UserError``."""
    name = given or re.sub(r"[^a-z0-9_-]+", "_", root.name.lower()).strip("_") or "own"
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise UserError(f"--name {name}: expected letters, digits, - and _")
    if _is_value(name):  # the command line would not read `experiments=2024` as a name
        if given:
            raise UserError(f"--name {name}: is no name on the command line; expected one such as own_{name}")
        name = f"own_{name}"
    if is_shipped("dataset", name):
        shipped = ", ".join(sorted(path.stem for path in (conf_dir() / "dataset").glob("*.yaml")))
        raise UserError(
            f"dataset={name} is one of semiseg's own ({shipped}); choose another: --name my_{name}"
        )
    return name


def _is_value(text: str) -> bool:
    """Whether the command line reads a word as a number, a truth value or nothing."""
    if text.lower() in ("true", "false", "null"):
        return True
    try:
        float(text)
    except ValueError:
        return False
    return True


def measured(
    values: dict[str, Any],
    layout: Layout,
    files: FolderFiles,
    found: Survey,
    classes: Classes,
    parts: ChosenParts,
) -> tuple[DatasetDraft, list[str]]:
    """Read all files as a run does; return the config to write, and the report as lines.

    Args:
        values: arguments of ``Folder``.
        layout: folders and names of the files.
        files: images and masks.
        found: numbers or colors in the masks.
        classes: classes in the masks.
        parts: validation and test images.

    Raises:
        BadFilesError: unusable files, unless they are left out.
        UserError: no usable labeled or validation image.
    """
    with collected_messages() as warnings, progress("files", len(files.ids)) as tick:
        dataset = Folder(**values)
        statistics = BandStatistics()
        if dataset.band_reader is not None:
            dataset.band_reader.watch = statistics.add
        report = check_files(dataset, make_split(dataset, "full"), lambda done, total: tick())
    drawn = dataset.ids("val") if parts.listed else ()
    if parts.listed:
        report, joined = drawn_apart(dataset, report, float(parts.val))
        warnings += joined
        drawn = report.split.val if joined else drawn
    info = dataset.info
    if dataset.info.bands is not None:
        ids = (*report.split.labeled, *report.split.unlabeled)
        values["bands"], remarks = statistics.measured(dataset.info.bands, ids)
        info = replace(info, bands=values["bands"])
        warnings += remarks
    measures = measure(dataset.info, report)
    notes = [*classes.notes, *parts.notes, *warnings, *_limits(dataset, report)]
    lines = [
        *([] if dataset.info.bands is None else [band_line(values["bands"])]),
        *survey_report(layout, files, found, classes, measures),
        "",
        *(f"note     {note}" for note in notes),
    ]
    if parts.listed:
        values["val"] = str(parts.listed.absolute())
    config = config_yaml(values, classes, measures)
    return DatasetDraft(config, drawn, classes.made_up, measures, info), lines


def _limits(dataset: Folder, report: CheckReport) -> list[str]:
    """What limits a result on the dataset, or the reason why a run would be refused."""
    try:
        trust = weigh(dataset, report)
    except UserError as error:
        return [f"no run would start: {error}"]
    return [*trust.warnings, *trust.unmeasured, *trust.notes]


def write_draft(draft: DatasetDraft, target: Path, own_list: Path) -> None:
    """Write the config, and the list of the validation images that were drawn; print their paths.

    Raises:
        UserError: they cannot be written.
    """
    with writes(target, ELSEWHERE):
        target.parent.mkdir(exist_ok=True)
        if draft.drawn:
            write_text(own_list, "".join(f"{image_id}\n" for image_id in draft.drawn))
            print(f"written  {own_list}")
        write_text(target, draft.config)
    print(f"written  {target}")


def next_steps(name: str, target: Path, findings: DatasetDraft, training: Sequence[str] = ()) -> list[str]:
    """Return the commands to go on with, as lines.

    Args:
        name: name of the dataset.
        target: its config.
        findings: what the steps depend on.
        training: commands that train; without any, a plan is proposed.
    """
    split = "full" if findings.measures.parts["unlabeled"] or training else "1/8"
    lines = [f"semiseg splits check dataset={name} split={split}", *training]
    if not training:
        smallest = min(min(size) for size in findings.measures.sizes)
        crop = max(32, min(512, smallest // 32 * 32))
        lines.append(f"semiseg train --plan dataset={name} split={split} method=cps trainer.crop_size={crop}")
    if findings.made_up:
        lines.insert(
            0, f"write the names of the classes into {target}, or give them: --classes NAME,NAME,... --force"
        )
    return ["", "next", *(f"  {line}" for line in lines)]
