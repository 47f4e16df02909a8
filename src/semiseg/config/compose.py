"""From the command line to one config: Hydra's composition, the rules around it, and the stored form."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from semiseg.config import rows, schema, searchpath
from semiseg.config.faults import Fault
from semiseg.config.layers import (
    Layer,
    base_60_faults,
    command_layer,
    file_layers,
    own_files,
    register_local,
)
from semiseg.config.other_networks import others, settle_networks
from semiseg.config.overrides import COMMAND_LINE, Given, parse
from semiseg.config.stored import Config, plain, renew
from semiseg.config.targets import complete
from semiseg.settings import COMPONENTS, DEFAULT_ITERATIONS, NETWORK_PARTS, RunSettings

HYDRA_VERSION_BASE = "1.3"

Composed = DictConfig
"""A composed config; its interpolations are resolved when they are read."""


@dataclass(frozen=True)
class Request:
    """Config that the command line asks for.

    Args:
        overrides: overrides ``key=value`` and ``group=option``, as typed.
        config_dir: folder of the primary config; ``None`` takes that of semiseg.
        config_name: name of the primary config, without ``.yaml``.
        in_sweep: whether it is one of the runs of ``-m``.
    """

    overrides: tuple[str, ...] = ()
    config_dir: Path | None = None
    config_name: str = "train"
    in_sweep: bool = False

    @property
    def primary(self) -> Path:
        """File of the primary config."""
        return self.primary_dir / f"{self.config_name}.yaml"

    @property
    def primary_dir(self) -> Path:
        """Folder of the primary config."""
        return self.config_dir.expanduser().resolve() if self.config_dir else searchpath.conf_dir()


@dataclass
class Draft:
    """A config composed without types, so that every fault in it can be found.

    Args:
        cfg: composed config; ``None`` where composing failed.
        given: overrides that could be used.
        layers: values of each source, the strongest source first.
        faults: faults found so far.
        usual_length: whether no source gives the length of fits, so that it is ``DEFAULT_ITERATIONS``.
    """

    cfg: DictConfig | None
    given: list[Given]
    layers: list[Layer]
    faults: list[Fault] = field(default_factory=list)
    usual_length: bool = False

    def source(self, key: str) -> str | None:
        """Return the name of the source that sets a key, or one below it; ``None`` for the package's own files."""
        return next((layer.name for layer in self.layers if layer.sets(key)), None)


def draft(request: Request) -> Draft:
    """Compose without types; an override that cannot be composed becomes a fault and is left out."""
    given, faults = parse(request.overrides)
    faults += register_local()
    if not request.primary.is_file():
        missing = Fault("--config-name", f"there is no file {request.primary}", request.config_name)
        return Draft(None, given, [], [*faults, missing])
    schema.register(typed=False)
    with hydra_at(request.primary_dir):
        cfg, reason = _attempt(request, given)
        if reason:
            given, more = _composable(request, given)
            faults += more
            cfg, _ = _attempt(request, given)
    files = own_files(given, request.primary if request.config_dir else None)
    faults += base_60_faults(files)
    layers = [command_layer(given), *file_layers(files)]
    if not request.in_sweep and layers[0].values.get("sweep_dir") is not None:
        faults.append(
            Fault("sweep_dir", "is for -m; a single run takes run_dir.", layers[0].values["sweep_dir"])
        )
    usual = cfg is not None and settle_budget(cfg, layers[0], faults)
    if cfg is not None:
        faults += settle_networks(cfg, layers)
    return Draft(cfg, given, layers, faults, usual)


def compose(request: Request) -> DictConfig:
    """Compose with types, after ``draft`` and the checks have found no fault."""
    given, _ = parse(request.overrides)
    register_local()
    schema.register(typed=True)
    with hydra_at(request.primary_dir):
        cfg = _composed(request, given)
    settle_given(cfg, request, given)
    complete_components(cfg)
    return cfg


def settle_given(cfg: DictConfig, request: Request, given: list[Given]) -> None:
    """Settle what overrides and files leave open: the length of a run, and the networks of its method.

    Args:
        cfg: config without faults, changed in place.
        request: request that it was composed for.
        given: overrides that it was composed from.
    """
    files = own_files(given, request.primary if request.config_dir else None)
    layers = [command_layer(given), *file_layers(files)]
    settle_budget(cfg, layers[0])
    settle_networks(cfg, layers)


def typed(found: Draft) -> DictConfig:
    """Return the config of a draft without faults as ``compose`` does, without composing it again."""
    cfg = OmegaConf.merge(OmegaConf.structured(schema.structured(RunSettings)), found.cfg)
    assert isinstance(cfg, DictConfig)
    complete_components(cfg)
    return cfg


def complete_components(cfg: DictConfig) -> None:
    """Fill in the declared defaults of the components, which are imported for this."""
    # Hydra returns a closed config, which refuses keys that its files do not name.
    OmegaConf.set_struct(cfg, False)
    for key in COMPONENTS:
        if isinstance(cfg.get(key), DictConfig):
            complete(cfg[key], key)


@contextmanager
def hydra_at(folder: Path) -> Iterator[None]:
    """Set up Hydra with a primary config folder and semiseg's search path, and reset it at the end."""
    searchpath.register()
    rows.register()
    with initialize_config_dir(str(folder), version_base=HYDRA_VERSION_BASE):
        yield


def settle_budget(cfg: DictConfig, command: Layer, faults: list[Fault] | None = None) -> bool:
    """Leave exactly one of ``trainer.iterations`` and ``trainer.epochs``.

    A key on the command line wins over the other key in any file; files may not give both; where neither
    is given, ``DEFAULT_ITERATIONS`` are run.

    Args:
        cfg: config, changed in place.
        command: values of the command line.
        faults: list that a fault is added to; ``None`` adds none.

    Returns:
        Whether ``DEFAULT_ITERATIONS`` were set.
    """
    trainer = cfg.get("trainer")
    if not isinstance(trainer, DictConfig):
        return False
    keys = ("iterations", "epochs")
    typed = [key for key in keys if command.values.get(f"trainer.{key}") is not None]
    if len(typed) == 1:
        trainer[keys[1 - keys.index(typed[0])]] = None
    # Not resolved: an interpolation that fails is named by the check of all values.
    raw: Any = OmegaConf.to_container(trainer, resolve=False)
    values = [raw.get(key) for key in keys]
    if None not in values:
        both = f"trainer.iterations={values[0]} trainer.epochs={values[1]}"
        if faults is not None:
            faults.append(Fault(both, "a run has one length: give one of the two, or set the other to null."))
    if values != [None, None]:
        return False
    trainer["iterations"] = DEFAULT_ITERATIONS
    return True


def run_name(cfg: Config) -> str:
    """Return the ``name`` of a run, or one made from its options, without slashes."""
    if cfg["name"]:
        return _slug(cfg["name"])
    parts = (
        cfg["dataset"]["name"],
        cfg["split"].replace("/", "of"),
        f"{cfg['split_family']}{cfg['split_id']}",
        *(cfg[group]["name"] for group in ("backbone", "model", "method")),
        *_names_of_others(cfg),
        f"s{cfg['seed']}",
    )
    return "-".join(_slug(part) for part in parts)


def new_run_dir(cfg: DictConfig) -> Path:
    """Return a directory for a new run, ``runs/NAME/TIME``; it is not made yet."""
    # With microseconds: jobs of a cluster may begin within one second.
    return Path("runs") / run_name(cfg) / datetime.now().strftime("%Y%m%d-%H%M%S-%f")


def render_run_yaml(cfg: DictConfig) -> str:
    """Return a primary config that composes to ``cfg`` again: ``--config-dir RUN --config-name run``.

    It names its own schema and keeps interpolations. The run directory stays out, so that a new run gets a
    new one, and so does a name that only follows from the other keys.
    """
    body: Any = OmegaConf.to_container(cfg, resolve=False)
    for key in ("run_dir", "sweep_dir"):
        body[key] = None
    if cfg.name == run_name({**plain(cfg), "name": None}):
        body["name"] = None
    head = {"defaults": ["schema", {"hydra": "default"}, "_self_"]}
    return (
        "# Run it again:  semiseg train --config-dir THIS_FOLDER --config-name run\n"
        "# Go on with it: semiseg train run_dir=THIS_FOLDER\n"
        + OmegaConf.to_yaml(head)
        + OmegaConf.to_yaml(body)
    )


def as_yaml(cfg: DictConfig, resolve: bool = True) -> str:
    """Return a config as YAML."""
    return OmegaConf.to_yaml(cfg, resolve=resolve)


def _names_of_others(cfg: Config) -> Iterator[str]:
    """Yield a word for each part in which another network of the method differs: ``partner_resnet18``."""
    for role, node in others(cfg).items():
        parts = [node[part] for part in NETWORK_PARTS if node.get(part) is not None]
        yield "_".join([role, *(str(part.get("name") or part.get("_target_")) for part in parts)])


def _slug(text: Any) -> str:
    return re.sub(r"[^\w.-]+", "_", str(text)).strip("._") or "run"


def _composed(request: Request, given: list[Given]) -> DictConfig:
    cfg = hydra_compose(request.config_name, [each.lenient() for each in given])
    if request.config_dir:
        renew(cfg)
    return cfg


def _attempt(request: Request, given: list[Given]) -> tuple[DictConfig | None, str]:
    """Compose; where that fails, return ``None`` and the reason."""
    try:
        return _composed(request, given), ""
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError) as error:
        reason = str(error).strip()
        cause = str(error.__cause__ or "").strip().partition("\n")[0]
        return None, reason if cause in reason else f"{reason}: {cause}"


def _composable(request: Request, given: list[Given]) -> tuple[list[Given], list[Fault]]:
    """Return the overrides that can be composed one after the other, and a fault for each of the others."""
    if (reason := _attempt(request, [])[1]) != "":
        return given, [Fault(str(request.primary), reason)]
    usable: list[Given] = []
    faults = []
    for each in given:
        if reason := _attempt(request, [*usable, each])[1]:
            faults.append(Fault(each.text, reason, source=COMMAND_LINE))
        else:
            usable.append(each)
    return usable, faults
