"""Configs as plain values, composed or stored by a run, and the settings among them that a result depends on."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from semiseg.config.layers import flatten
from semiseg.config.marks import is_harmless
from semiseg.config.targets import complete
from semiseg.declare import declared
from semiseg.errors import UserError
from semiseg.settings import COMPONENTS, RECORDS, RunSettings

Config = Mapping[str, Any]
"""A config, composed or of plain values."""


STORED = "run"
"""Name, without ``.yaml``, of the config that a run stores to be composed again."""


def stored_run(run_dir: Any) -> Path | None:
    """Return the directory of a run that has begun, or ``None``; YAML may have read a name as a number."""
    path = None if run_dir in (None, "") else Path(str(run_dir)).expanduser()
    return path if path and (path / f"{STORED}.yaml").is_file() else None


def plain(cfg: Config) -> dict[str, Any]:
    """Return a config, or a node of one, as plain values with interpolations resolved."""
    values: Any = OmegaConf.to_container(cfg, resolve=True) if isinstance(cfg, DictConfig) else cfg
    return {str(key): value for key, value in values.items()}


def as_written(cfg: DictConfig) -> dict[str, Any]:
    """Return the plain values of a composed config, with interpolations as they are written."""
    written: Any = OmegaConf.to_container(cfg, resolve=False)
    return {str(key): value for key, value in written.items()}


def read_config(path: Path, node: str | None = None) -> dict[str, Any]:
    """Read a YAML file by the rules of composed configs, in which 1e-3 is a number.

    Args:
        path: file; one that holds no keys gives an empty dict.
        node: key of the only node to read, where a missing one gives an empty dict; ``None`` reads the whole file.

    Raises:
        UserError: it cannot be read.
    """
    try:
        loaded = OmegaConf.load(path)
        found = loaded.get(node) if node is not None and isinstance(loaded, DictConfig) else loaded
        return plain(found) if isinstance(found, DictConfig) else {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"{path} cannot be read: {error}") from error


def read_resolved(path: Path) -> dict[str, Any]:
    """Read a YAML file whose interpolations were resolved, so that ``${`` in it is the name of a folder.

    Raises:
        UserError: it cannot be read.
    """
    try:
        loaded = OmegaConf.load(path)
        return as_written(loaded) if isinstance(loaded, DictConfig) else {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"{path} cannot be read: {error}") from error


def renew(stored: Any) -> None:
    """Give the method of a stored config the class that it has today; the config is changed in place.

    DMTC was a setting of DMT in version 0.1.0, whose runs can still be continued, repeated and compared.
    """
    method = stored.get("method")
    was_setting = isinstance(method, dict | DictConfig) and method.get("contrast") is not None
    if was_setting and method["_target_"] == "semiseg.methods.dmt.DMT":
        method["_target_"] = "semiseg.methods.dmtc.DMTC"


def completed(stored: Config) -> dict[str, Any]:
    """Return a stored config with the declared defaults of settings that its version of semiseg did not write."""
    # A copy, since ``complete`` changes nested nodes, and the run must compare what it has stored.
    filled = copy.deepcopy(plain(stored))
    renew(filled)
    for key in COMPONENTS:
        complete(filled.get(key), key)
    for key, record in RECORDS.items():
        if isinstance(filled.get(key), dict):
            defaults = {name: setting.default for name, setting in declared(record).items()}
            filled[key] = {**defaults, **filled[key]}
    return _with_run_settings(filled)


def _with_run_settings(stored: dict[str, Any]) -> dict[str, Any]:
    """Add the defaults of the settings beside components, unless this is a part of a config."""
    defaults = {
        name: setting.default
        for name, setting in declared(RunSettings).items()
        if name not in (*COMPONENTS, *RECORDS) and isinstance(setting.default, str | int | float)
    }
    return {**defaults, **stored} if "method" in stored else stored


def settings_that_matter(cfg: Config) -> dict[str, Any]:
    """Return dotted keys and values of all settings that a result depends on, interpolations resolved.

    A key that is null counts as missing, so that a run can be resumed after keys have been added: a setting that
    may be ``None`` is ``None`` by default, in components too.
    """
    values = plain(cfg)
    return {
        key: value
        for key, value in flatten(values).items()
        if value is not None and not is_harmless(key, values)
    }


def differing_keys(old: Config, new: Config) -> list[tuple[str, Any, Any]]:
    """Return differing keys that could change a result, with old and new value; ``None`` where one is missing.

    ``trainer.threads`` counts only where the new config gives it: a resumed run takes the stored number.
    """
    before, after = settings_that_matter(_with_run_settings(plain(old))), settings_that_matter(new)
    if after.get("trainer.threads") is None:
        after["trainer.threads"] = before.get("trainer.threads")
    keys = dict.fromkeys([*before, *after])
    return [(key, before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)]
