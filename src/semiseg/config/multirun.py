"""``-m``: one run for each combination of values, expanded by Hydra and started by one of its launchers."""

import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path

import hydra
from omegaconf import DictConfig

from hydra_plugins import semiseg_submitit
from semiseg.config import schema, searchpath
from semiseg.config.check import Checker
from semiseg.config.compose import HYDRA_VERSION_BASE, Draft, Request, typed
from semiseg.config.environment import set_environment
from semiseg.config.faults import ConfigFaults, Fault
from semiseg.config.grid import Grid, expand
from semiseg.config.literals import literal, quoted
from semiseg.config.prepare import drafted, settle
from semiseg.config.stored import stored_run
from semiseg.errors import UserError
from semiseg.runs.read import StoredRun
from semiseg.sweep.campaign import Campaign, Run
from semiseg.sweep.index import Index, locked_sweep
from semiseg.sweep.job import PLACES, Job, job_of


def sweep(request: Request, load: Callable[[], Run]) -> int:
    """Run every combination that is not done yet; a failing one does not end the others.

    Args:
        request: overrides, some of them with several values.
        load: function that returns the one that trains a run, for launchers that train in their own process.

    Returns:
        0 where all runs are done. Else the code of the signal that stopped the sweep, 1 where a run crashed or
        was killed, 2 where one was refused, 75 where one reached its time limit.

    Raises:
        ConfigFaults: a fault of any combination; nothing is run then.
        UserError: the sweep directory cannot be used, or a run in it has other settings.
    """
    searchpath.register()
    semiseg_submitit.register()
    grid = expand(request)
    drafts = [drafted(each) for each in grid.requests(request)]
    _refuse_faults(grid.faults, drafts)
    # Before the classes are imported that complete the configs: torch reads it when it is imported.
    set_environment(drafts[-1].cfg)
    configs = [typed(each) for each in drafts]
    place = Path(configs[0].sweep_dir or new_sweep_dir()).expanduser()
    jobs = [job_of(request, *each, place) for each in zip(configs, grid.combinations, strict=True)]
    with locked_sweep(place):
        _refuse_other_settings(zip(configs, jobs, strict=True))
        placed = [_placed(*each) for each in zip(drafts, jobs, strict=True)]
        missing = [
            each for each, job in zip(placed, jobs, strict=True) if StoredRun(job.folder).summary is None
        ]
        _refuse_objects(missing)
        campaign = Campaign(request, Index(place), jobs if grid.closed else [], load)
        campaign.begin()
        if missing or not grid.closed:
            campaign.code = _launch(request, grid, campaign)
        return campaign.end()


def new_sweep_dir() -> str:
    """Return a directory for a new sweep, ``runs/sweeps/TIME``; it is not made yet."""
    return str(Path("runs/sweeps") / datetime.now().strftime("%Y%m%d-%H%M%S-%f"))


def _refuse_faults(found: Sequence[Fault], drafts: Sequence[Draft]) -> None:
    """Refuse faults in the settings of any config, which are found without torch."""
    checker = Checker()
    own = [checker.settings(each) for each in drafts]
    faults = [*found, *(fault for each in own for fault in each)]
    if faults:
        pairs = zip(drafts, own, strict=True)
        more = [fault for each, known in pairs for fault in checker.objects(each, known, elsewhere=True)]
        raise ConfigFaults([*faults, *more])


def _refuse_objects(drafts: Sequence[Draft]) -> None:
    """Refuse faults that torch and the file names of the data show, in configs whose settings are right."""
    if not drafts:
        return
    checker = Checker()
    faults = [fault for each in drafts for fault in checker.objects(each, [])]
    if faults:
        raise ConfigFaults(faults)


def _refuse_other_settings(jobs: Iterator[tuple[DictConfig, Job]]) -> None:
    """Refuse settings that differ from those of begun runs, since files that a combination reads may have changed."""
    answers = []
    for cfg, job in jobs:
        if stored_run(job.folder):
            cfg.run_dir = literal(str(job.folder))
            try:
                settle(cfg)
            except UserError as error:
                answers.append(str(error))
    if answers:
        more = f"\n{len(answers)} runs of the sweep have other settings." if len(answers) > 1 else ""
        raise UserError(f"{answers[0]}{more} Choose another sweep_dir for the new settings; nothing was run.")


def _placed(found: Draft, job: Job) -> Draft:
    """Set the run directory of a draft, which may already hold the fits of another run that it needs."""
    assert found.cfg is not None
    found.cfg.run_dir = literal(str(job.folder))
    return found


def _launch(request: Request, grid: Grid, campaign: Campaign) -> int:
    """Let Hydra expand the command line and pass its jobs to the chosen launcher."""
    schema.register(typed=True)
    main = hydra.main(
        version_base=HYDRA_VERSION_BASE, config_path=str(request.primary_dir), config_name=request.config_name
    )
    # Hydra reads the command line of the process, and that of semiseg is not Hydra's.
    previous = sys.argv
    sys.argv = ["semiseg", "--multirun", *_arguments(grid, campaign.directory)]
    try:
        main(campaign)()
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1
    finally:
        sys.argv = previous
    return 0


def _arguments(grid: Grid, place: Path) -> Iterator[str]:
    """Yield overrides for Hydra, which replaces values of a preset by the command line only if spelled alike."""
    preset_keys = {each.key for each in grid.presets}
    for each in grid.given:
        if each.key not in PLACES:
            yield each.text if each.key in preset_keys else each.lenient()
    yield f"sweep_dir={quoted(literal(str(place)))}"
