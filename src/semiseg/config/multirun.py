"""``-m``: one run for each combination of values, expanded and launched by Hydra."""

import hashlib
import itertools
import logging
import math
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import hydra
from hydra import compose as hydra_compose
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Glob
from omegaconf import DictConfig, OmegaConf

from semiseg.config import schema, searchpath
from semiseg.config.compose import HYDRA_VERSION_BASE, Request, hydra_at, run_name, settle_budget
from semiseg.config.faults import Fault
from semiseg.config.layers import command_layer, register_local
from semiseg.config.overrides import COMMAND_LINE, Given, parse
from semiseg.config.prepare import checked_together, settle
from semiseg.config.searchpath import options
from semiseg.errors import Interrupted, RunFailed, UserError

log = logging.getLogger(__name__)
Run = Callable[[DictConfig, list[str]], float]
PLACES = ("run_dir", "sweep_dir")


def sweep(request: Request, run: Callable[[], Run]) -> int:
    """Run every combination, one after the other; a failing one does not end the others.

    Args:
        request: overrides, some of them with several values.
        run: gives the function that trains one; called after all configs were found right.

    Returns:
        0, or 1 where a run crashed, or 2 where one was refused.

    Raises:
        ConfigFaults: a fault of any combination; nothing is run then.
        Interrupted: a run was asked to stop.
    """
    given, faults = parse(request.overrides, sweep=True)
    if any(each.key == "run_dir" for each in given):
        faults.append(
            Fault("run_dir", "-m makes a directory for each run; use sweep_dir.", source=COMMAND_LINE)
        )
        given = [each for each in given if each.key != "run_dir"]
    requests = [
        replace(request, overrides=tuple(texts), in_sweep=True) for texts in combinations(request, given)
    ]
    cfg = checked_together(requests, faults)
    return _launch(request, given, cfg.sweep_dir, run())


def combinations(request: Request, given: Sequence[Given]) -> list[list[str]]:
    """Overrides of each run, as Hydra's sweeper will make them; open ranges such as ``interval`` are left out."""
    values = {
        each.key: _single(each) for each in [*_sweep_params(request, given), *given] if not each.is_hydra
    }
    return [list(texts) for texts in itertools.product(*(texts for texts in values.values() if texts))]


def _sweep_params(request: Request, given: Sequence[Given]) -> list[Given]:
    """What a preset sweeps over: ``hydra.sweeper.params``."""
    schema.register(typed=False)
    register_local()
    fixed = [each.lenient() for each in given if not each.parsed.is_sweep_override()]
    if not request.primary.is_file():
        return []
    with hydra_at(request.primary_dir):
        try:
            cfg = hydra_compose(request.config_name, fixed, return_hydra_config=True)
        except Exception:  # the check of the single configs says what is wrong
            return []
    params = OmegaConf.select(cfg, "hydra.sweeper.params") or {}
    return parse([f"{key}={value}" for key, value in params.items()], sweep=True)[0]


def _single(given: Given) -> list[str]:
    """One override for each value."""
    if not given.parsed.is_sweep_override():
        return [given.text]
    key = given.text.partition("=")[0]
    value: object = given.parsed.value()
    if isinstance(value, Glob):
        return [f"{key}={name}" for name in value.filter(options(given.key))]
    if not given.parsed.is_discrete_sweep():
        return []
    return [f"{key}={text}" for text in given.parsed.sweep_string_iterator()]


def _launch(request: Request, given: Sequence[Given], sweep_dir: str | None, run: Run) -> int:
    failures: list[tuple[str, int]] = []

    def job(cfg: DictConfig) -> float:
        overrides = [text.lstrip("+") for text in HydraConfig.get().overrides.task]
        settle_budget(cfg, command_layer(parse(overrides)[0]))
        cfg.run_dir = str(Path(cfg.sweep_dir) / job_name(cfg, overrides))
        try:
            return run(settle(cfg), overrides)
        except Interrupted as error:
            log.warning("%s; stopped the sweep in %s", error.reason, cfg.run_dir)
            raise SystemExit(error.exit_code) from error
        except (UserError, RunFailed) as error:
            print(f"semiseg: {error}", file=sys.stderr)
            failures.append((cfg.run_dir, 2 if isinstance(error, UserError) else 1))
        except Exception:  # one crash must not end the other runs
            traceback.print_exc()
            failures.append((cfg.run_dir, 1))
        return math.nan

    searchpath.register()
    place = sweep_dir or str(Path("runs/sweeps") / datetime.now().strftime("%Y%m%d-%H%M%S-%f"))
    preset_keys = {each.key for each in _sweep_params(request, given)}
    schema.register(typed=True)
    code = _hydra_main(request, list(_arguments(given, preset_keys, place)), job)
    for run_dir, _ in failures:
        print(f"semiseg: failed: {run_dir}", file=sys.stderr)
    return code or min((failure for _, failure in failures), default=0)


def job_name(cfg: DictConfig, overrides: Sequence[str]) -> str:
    """Directory of a run in a sweep: its name and a hash of its sorted overrides."""
    mine = sorted(text for text in overrides if text.partition("=")[0] not in PLACES)
    digest = hashlib.sha256("\n".join(mine).encode()).hexdigest()[:8]
    return f"{run_name(cfg)}-{digest}"


def _arguments(given: Sequence[Given], preset_keys: set[str], place: str) -> Iterator[str]:
    """Overrides for Hydra; what a preset sweeps over is replaced by the command line only if spelled alike."""
    for each in given:
        if each.key not in PLACES:
            yield each.text if each.key in preset_keys else each.lenient()
    if not any(each.key == "hydra/job_logging" for each in given):
        yield "hydra/job_logging=none"
    escaped = place.replace("\\", "\\\\").replace("'", "\\'")
    yield f"sweep_dir='{escaped}'"


def _hydra_main(request: Request, arguments: Sequence[str], job: Callable[[DictConfig], float]) -> int:
    main = hydra.main(
        version_base=HYDRA_VERSION_BASE, config_path=str(request.primary_dir), config_name=request.config_name
    )
    former = sys.argv
    sys.argv = ["semiseg", "--multirun", *arguments]
    try:
        main(job)()
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1
    finally:
        sys.argv = former
    return 0
