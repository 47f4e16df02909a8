"""Networks of a method beside that of the run, such as ``method.partner``: options by name, and configs of one network.

A source that names an option, ``method.partner.backbone=resnet18``, begins its node anew; keys below it,
``method.partner.backbone.output_stride=8``, change the option, or without a name what the run has.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from semiseg.config.faults import Fault
from semiseg.config.layers import Layer
from semiseg.config.overrides import choice_fault
from semiseg.config.searchpath import option_file, options
from semiseg.errors import UserError, UserErrors, listed
from semiseg.settings import MISSING, NETWORK_PARTS, OTHER_NETWORKS, OtherNetwork

TARGET = f"{OtherNetwork.__module__}.{OtherNetwork.__name__}"
Config = Mapping[str, Any]


@dataclass(frozen=True)
class PartChoice:
    """What the sources say about one part of a network.

    Args:
        option: name of an option; ``None`` where the strongest source that speaks of the whole part names none.
        keys: dotted keys below the part, and their values.
    """

    option: str | None
    keys: Mapping[str, Any]


def others(config: Config) -> dict[str, Any]:
    """Return the nodes of the networks that the method of a config describes, by their role."""
    method = config.get("method")
    if not isinstance(method, Mapping | DictConfig):
        return {}
    nodes = {role: method.get(role) for role in OTHER_NETWORKS}
    return {role: node for role, node in nodes.items() if _describes_network(node)}


def other_parts(config: Config) -> dict[str, Any]:
    """Return the parts in which such networks differ from that of the run, by their dotted key."""
    return {
        f"method.{role}.{part}": node[part]
        for role, node in others(config).items()
        for part in NETWORK_PARTS
        if node.get(part) is not None
    }


def part_of(key: str) -> str:
    """Return the config group of a component: "backbone" for "method.partner.backbone"."""
    return key.rpartition(".")[2]


def role_of(key: str) -> str | None:
    """Return the role of the network that a component belongs to; ``None`` for those of the run."""
    return key.split(".")[1] if "." in key else None


def config_of(config: Config, role: str | None) -> Config:
    """Return a config whose ``backbone``, ``model`` and ``optimizer`` are those of one network.

    Args:
        config: config of a run, composed or plain.
        role: key of the method that describes the network; ``None`` for that of the run.
    """
    node = others(config).get(role) if role is not None else None
    if node is None:
        return config
    own = {part: node[part] for part in NETWORK_PARTS if node.get(part) is not None}
    return {**{key: config[key] for key in config}, **own}


def named(method: Config) -> dict[str, Any]:
    """Return the plain node of a method in which the parts of other networks are the names of their options."""
    renamed = {
        role: {**node, **{part: _name(node[part]) for part in NETWORK_PARTS if node.get(part) is not None}}
        for role, node in others({"method": method}).items()
    }
    return {**method, **renamed}


def place(key: str, config: Config, role: str | None) -> str:
    """Return the key that a setting of a network has in the config: ``method.partner.backbone.depth``."""
    part = key.partition(".")[0]
    node = others(config).get(role) if role is not None else None
    return f"method.{role}.{key}" if part in NETWORK_PARTS and node and node.get(part) is not None else key


def placed(error: UserError, config: Config, role: str | None) -> UserError:
    """Return an error about a network of a role with the keys that its settings have in the config."""
    found = [
        each
        if each.key is None
        else UserError(each.expected, key=place(each.key, config, role), value=each.value)
        for each in error.errors
    ]
    return found[0] if len(found) == 1 else UserErrors(found)


def settle_networks(cfg: DictConfig, layers: Sequence[Layer]) -> list[Fault]:
    """Replace the names of options by their nodes; parts that are as those of the run become ``null``.

    Args:
        cfg: composed config, changed in place.
        layers: values of each source, the strongest first.

    Returns:
        Faults of names; their parts are ``null``.
    """
    method = cfg.get("method")
    if not isinstance(method, DictConfig):
        return []
    faults: list[Fault] = []
    for role in OTHER_NETWORKS:
        node = method.get(role)
        if not (isinstance(node, DictConfig) and _describes_network(node)):
            continue
        OmegaConf.set_struct(node, False)  # Hydra returns a closed config
        node["_target_"] = TARGET
        for part in NETWORK_PARTS:
            try:
                node[part] = _settled(cfg, role, part, layers)
            except _WrongOption as wrong:
                faults.append(wrong.fault)
                node[part] = None
    return faults


class _WrongOption(Exception):  # noqa: N818 - carries a fault to where all are collected
    def __init__(self, fault: Fault) -> None:
        super().__init__(str(fault))
        self.fault = fault


def _settled(cfg: DictConfig, role: str, part: str, layers: Sequence[Layer]) -> DictConfig | None:
    """Return the node of one part; ``None`` for that of the run."""
    key = f"method.{role}.{part}"
    composed = cfg.method[role].get(part)
    choice = _choice(key, layers)
    if choice.option is None and isinstance(composed, DictConfig) and "_target_" in composed:
        return composed
    if choice.option is None and composed is not None and not isinstance(composed, DictConfig):
        allowed = f"expected null or the name of an option.\nThere are: {listed(options(part))}."
        raise _WrongOption(Fault(key, allowed, OmegaConf.to_container(composed)))
    run_backbone = _name(cfg.get("backbone"))
    partner = cfg.method[role].get("backbone")
    backbone = run_backbone if part == "backbone" or partner is None else _name(partner)
    if choice.option is not None:
        if fault := choice_fault(part, choice.option, ""):
            raise _WrongOption(Fault(key, fault.expected, choice.option, fault.near))
        node = OmegaConf.merge(_option(part, choice.option, key), _pair(backbone, choice.option))
    else:
        node = _of_run(cfg, part, run_backbone, backbone)
    for name, value in choice.keys.items():
        OmegaConf.update(node, name, value, force_add=True)
    assert isinstance(node, DictConfig)
    return None if node == cfg.get(part) else node


def _choice(key: str, layers: Sequence[Layer]) -> PartChoice:
    """Find what the sources say about a part, from the strongest to the one that says what it is as a whole."""
    keys: dict[str, Any] = {}
    part = key.rpartition(".")[2]
    for layer in layers:
        for name, value in layer.values.items():
            if name.startswith(f"{key}."):
                keys.setdefault(name.removeprefix(f"{key}."), value)
        whole = layer.values.get(key)
        if isinstance(whole, str):
            return PartChoice(whole, keys)
        if key in layer.values or "_target_" in keys:
            break
        # In a file, {name: resnet18, output_stride: 8} is a choice and a key.
        if layer.values.get(f"{key}.name") in options(part):
            return PartChoice(str(keys.pop("name")), keys)
        if any(key.startswith(f"{name}.") for name in layer.values):
            break
    return PartChoice(None, keys)


def _of_run(cfg: DictConfig, part: str, run_backbone: str, backbone: str) -> DictConfig:
    """Return a copy of the node of the run, with the values that ``pairs/`` has for another backbone."""
    node = OmegaConf.create(OmegaConf.to_container(cfg[part], resolve=False))
    assert isinstance(node, DictConfig)
    if part == "backbone" or backbone == run_backbone:
        return node
    name = _name(node)
    own = _option(part, name, part) if option_file(part, name) else OmegaConf.create()
    for key, value in _pair(run_backbone, name).items():
        # A value that somebody gave is not that of the file, and stays.
        if node.get(key) == value:
            del node[key]
            if key in own:
                node[key] = own[key]
    return OmegaConf.merge(node, _pair(backbone, name))  # type: ignore[return-value]


def _option(group: str, name: str, key: str) -> DictConfig:
    """Read an option of a group and the options of the same group that it is based on."""
    path = option_file(group, name)
    assert path is not None
    try:
        body = OmegaConf.load(path)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise _WrongOption(Fault(key, f"{path} cannot be read: {error}", name)) from error
    if not isinstance(body, DictConfig):
        raise _WrongOption(Fault(key, f"{path} holds no keys.", name))
    defaults = body.pop("defaults", [])
    bases = [each for each in defaults if each != "_self_"]
    if unknown := [each for each in bases if not isinstance(each, str) or each not in options(group)]:
        simple = f"the defaults of {path} hold {unknown[0]}; a second network takes options of {group} alone."
        raise _WrongOption(Fault(key, simple, name))
    merged = OmegaConf.merge(*(_option(group, each, key) for each in bases), body)
    assert isinstance(merged, DictConfig)
    return merged


def _pair(backbone: str, option: str) -> DictConfig:
    """Read the values of ``pairs/`` for a backbone and an option; empty without such a file."""
    name = f"{backbone}-{option}"
    return _option("pairs", name, "pairs") if option_file("pairs", name) else OmegaConf.create()


def _describes_network(node: Any) -> bool:
    """Whether a node of a method is an ``OtherNetwork``; a method of one's own may have keys of the same name."""
    return isinstance(node, Mapping | DictConfig) and node.get("_target_", TARGET) == TARGET


def _name(node: Any) -> str:
    """Return the name of an option, or of the class of a node without one."""
    if not isinstance(node, Mapping | DictConfig):
        return str(node)
    missing = isinstance(node, DictConfig) and OmegaConf.is_missing(node, "name")
    name = None if missing else node.get("name")
    return str(node.get("_target_") if name in (None, MISSING) else name)


def roles(config: Config) -> Iterator[str | None]:
    """Yield the roles of all networks that a run may train: that of the run, then the others."""
    yield None
    yield from others(config)
