"""From a command line to a config that can be run: check, compose, compare with a stored run, fill in the rest."""

import logging
from contextlib import suppress
from pathlib import Path

from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from semiseg.config import build
from semiseg.config.check import Checker
from semiseg.config.check_keys import resolves
from semiseg.config.compose import (
    Draft,
    Request,
    complete_components,
    draft,
    new_run_dir,
    run_name,
    typed,
)
from semiseg.config.environment import free_threads, set_environment
from semiseg.config.faults import ConfigFaults
from semiseg.config.literals import literal
from semiseg.config.places import restore_places, settle_places
from semiseg.config.resume import other_settings, stored_config
from semiseg.config.stored import STORED, differing_keys, plain, stored_run
from semiseg.errors import UserError
from semiseg.files import file_digest
from semiseg.runs.read import network_file

log = logging.getLogger(__name__)


def drafted(request: Request) -> Draft:
    """Compose without types; components are completed where an interpolation needs a default that only they declare.

    That takes torch, so it is not done for every config.
    """
    found = draft(request)
    if found.cfg is not None and request.config_dir is not None and request.config_name == STORED:
        with suppress(TypeError, ValueError, OmegaConfBaseException):  # faults that the check names
            set_environment(found.cfg)
            remarks = restore_places(found.cfg, request.primary_dir, found.layers[0].values)
            for remark in () if request.in_sweep else remarks:
                log.warning(remark)
    if found.cfg is not None and not resolves(found.cfg):
        with suppress(TypeError, ValueError, OmegaConfBaseException):  # faults that the check names
            set_environment(found.cfg)
        complete_components(found.cfg)
    return found


def checked(request: Request, checker: Checker, settings_only: bool = False) -> DictConfig:
    """Compose a config without any fault.

    Args:
        request: config that the command line asks for.
        checker: checker, which remembers the parts that it has checked.
        settings_only: whether the components are neither imported nor checked.

    Raises:
        ConfigFaults: all faults.
    """
    found = drafted(request)
    faults = checker.settings(found)
    if not settings_only:
        if not faults:
            set_environment(found.cfg)
        faults = [*faults, *checker.objects(found, faults)]
    if faults:
        raise ConfigFaults(faults)
    return typed(found)


def settle(cfg: DictConfig) -> DictConfig:
    """Fill in the values that follow from others: name, run directory, threads, digest of the first network.

    Raises:
        UserError: the run directory holds a run with other settings, or ``init_from`` is not there any more.
    """
    run = stored_run(cfg.run_dir)
    stored = None if run is None else stored_config(run, plain(cfg)["data_roots"])
    settle_places(cfg)
    if cfg.init_from is not None:
        place = str(Path(cfg.init_from).expanduser().resolve())
        cfg.init_from = literal(place)
        cfg.init_sha256 = cfg.init_sha256 or _initial_digest(place, stored)
    if run is not None and stored is not None:
        if differing := differing_keys(stored, cfg):
            raise other_settings(run, differing)
        cfg.trainer.threads = cfg.trainer.threads or stored.trainer.threads
    if cfg.trainer.threads is None:
        on_cuda = build.device(cfg.trainer.device).type == "cuda"
        cfg.trainer.threads = free_threads(cfg.trainer.num_workers, on_cuda)
    if not cfg.run_dir:
        cfg.run_dir = str(new_run_dir(cfg))
    cfg.name = run_name(cfg)
    return cfg


def _initial_digest(place: str, stored: DictConfig | None) -> str:
    """Return the digest of the network that a run begins as; where its file is gone, the stored digest."""
    try:
        return file_digest(network_file(place))
    except UserError:
        if stored is None or stored.init_sha256 is None:
            raise
        return str(stored.init_sha256)
