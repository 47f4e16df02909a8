"""From a command line to a config that can be run: check, compose, compare with a stored run, fill in the rest."""

import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from semiseg.config.check import Checker
from semiseg.config.check_keys import resolves
from semiseg.config.compose import (
    Draft,
    Request,
    complete_components,
    compose,
    draft,
    new_run_dir,
    run_name,
    typed,
)
from semiseg.config.faults import ConfigFaults
from semiseg.config.marks import is_harmless
from semiseg.config.overrides import parse
from semiseg.config.stored import differing_keys
from semiseg.errors import UserError, shown
from semiseg.files import file_digest
from semiseg.runs.read import network_file

STORED = "run"
GIVEN_THREADS = os.environ.get("OMP_NUM_THREADS", "")
"""The user's value; read before ``set_environment`` writes its own."""


def drafted(request: Request) -> Draft:
    """Compose without types; components are completed where an interpolation needs a default that only they declare.

    That takes torch, so it is not done for every config.
    """
    found = draft(request)
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


def stored_run(run_dir: Any) -> Path | None:
    """Return the directory of a run that has begun, or ``None``; YAML may have read a name as a number."""
    path = None if run_dir in (None, "") else Path(str(run_dir)).expanduser()
    return path if path and (path / f"{STORED}.yaml").is_file() else None


def for_resume(request: Request) -> Request:
    """Return a request for the stored config, where only a begun run and keys that cannot change a result are given."""
    given, faults = parse(request.overrides)
    values = [each.parsed.value() for each in given if each.key == "run_dir"]
    run = stored_run(values[-1]) if values and not faults and request.config_dir is None else None
    if run is None or any(each.is_group for each in given):
        return request
    stored = OmegaConf.load(run / f"{STORED}.yaml")
    assert isinstance(stored, DictConfig)
    set_environment(stored)  # before the marks are read, which imports the classes and torch
    harmless = all(is_harmless(each.key, stored) for each in given)
    return replace(request, config_dir=run, config_name=STORED) if harmless else request


def settle(cfg: DictConfig) -> DictConfig:
    """Fill in the values that follow from others: name, run directory, threads, digest of the first network.

    Raises:
        UserError: the run directory holds a run with other settings, or ``init_from`` is not there any more.
    """
    run = stored_run(cfg.run_dir)
    stored = None if run is None else compose(Request(config_dir=run, config_name=STORED))
    if cfg.init_from is not None:
        cfg.init_from = str(Path(cfg.init_from).expanduser().resolve())
        cfg.init_sha256 = cfg.init_sha256 or _initial_digest(cfg.init_from, stored)
    if run is not None and stored is not None:
        if differing := differing_keys(stored, cfg):
            raise UserError(_other_settings(run, differing))
        cfg.trainer.threads = cfg.trainer.threads or stored.trainer.threads
    cfg.trainer.threads = cfg.trainer.threads or free_threads(cfg.trainer.num_workers)
    cfg.run_dir = cfg.run_dir or str(new_run_dir(cfg))
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


def free_threads(num_workers: int) -> int:
    """Return the threads for the main process: OMP_NUM_THREADS where it is set, else the cores less the workers."""
    if GIVEN_THREADS.isdigit() and int(GIVEN_THREADS) > 0:
        return int(GIVEN_THREADS)
    # Not os.cpu_count(): a job of a cluster may use a few cores of its machine alone.
    return max(1, len(os.sched_getaffinity(0)) - num_workers)


def set_environment(cfg: DictConfig | None) -> None:
    """Set the environment variables that libraries read when torch is imported; call it before.

    Args:
        cfg: config without faults; ``None`` does nothing.
    """
    if cfg is None:
        return
    threads = _threads(cfg)
    # Threads that sleep at once wake up too late (twice the time of a small network's step), threads that spin
    # for long starve every other process; a short spin does neither.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = str(threads)


def _threads(cfg: DictConfig) -> int:
    """Return the threads that ``settle`` will fill in."""
    run = stored_run(cfg.run_dir)
    stored = OmegaConf.select(OmegaConf.load(run / f"{STORED}.yaml"), "trainer.threads") if run else None
    return int(cfg.trainer.threads or stored or free_threads(int(cfg.trainer.num_workers)))


def _other_settings(run: Path, differing: list[tuple[str, object, object]]) -> str:
    lines = "\n".join(f"  {key}: {shown(old)} there, {shown(new)} now" for key, old, new in differing)
    return (
        f"{run} holds a run with other settings:\n{lines}\n"
        f"Go on with the stored settings by `semiseg train run_dir={run}` alone, or choose another run_dir."
    )
