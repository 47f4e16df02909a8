"""Turn config nodes into objects; the only caller of Hydra's ``instantiate``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf

from semiseg.config.check_keys import wrong_device
from semiseg.config.other_networks import config_of, named, others, placed
from semiseg.config.schema import structured
from semiseg.config.stored import Config, plain
from semiseg.config.targets import BadTarget, locate
from semiseg.declare import accepts, split_shared
from semiseg.errors import Interrupted, UserError, UserErrors

if TYPE_CHECKING:
    import torch

    from semiseg.contracts.dataset import DatasetInfo, SegDataset, Split
    from semiseg.contracts.recipe import Method
    from semiseg.contracts.training import OptimizerSpec, Schedule
    from semiseg.data.augment import Augment
    from semiseg.engine.session import NetworkFactory
    from semiseg.models.segmodel import Backbone, Decoder, SegModel, Stage

Record = TypeVar("Record")

DECODER_ARGUMENTS = ("stages",)
"""Arguments of a decoder that come from the backbone, not from its config node."""


def dataset(cfg: Config) -> SegDataset:
    """Build the dataset; raises ``UserError`` where its files are missing."""
    from semiseg.data.garbage import without_collection

    with without_collection():
        result: SegDataset = _built(cfg, "dataset")
    return result


def split(cfg: Config, dataset: SegDataset) -> Split:
    """Divide a dataset, see ``make_split`` and ``measurable``; raises ``UserError`` where that cannot be done."""
    from semiseg.data.file_faults import measurable
    from semiseg.splits.split import make_split

    made = make_split(
        dataset,
        str(cfg["split"]),
        cfg["split_family"],
        cfg["split_id"],
        cfg["unlabeled"],
        cfg["split_lists"],
        cfg.get("val_subset"),
    )
    return measurable(dataset, made)


def augment(cfg: Config) -> Augment:
    """Build the weak and strong views."""
    result: Augment = _built(cfg, "augment")
    return result


def method(cfg: Config) -> Method:
    """Build the training method; of its other networks it gets the names of their options."""
    result: Method = _built({"method": named(plain(cfg["method"]))}, "method")
    return result


def optimizer(cfg: Config) -> OptimizerSpec:
    """Build the settings of parameter groups and optimizer."""
    result: OptimizerSpec = _built(cfg, "optimizer")
    return result


def optimizers(cfg: Config) -> OptimizerSpec:
    """Build the settings of the optimizers of all networks that a run may train."""
    from semiseg.engine.joint_optimizer import OptimizerByRole

    own = {
        role: optimizer(config_of(cfg, role))
        for role, node in others(cfg).items()
        if node.get("optimizer") is not None
    }
    return OptimizerByRole(optimizer(cfg), own) if own else optimizer(cfg)


def schedule(cfg: Config) -> Schedule:
    """Build the learning-rate schedule."""
    result: Schedule = _built(cfg, "schedule")
    return result


def network_factory(cfg: Config, info: DatasetInfo) -> NetworkFactory:
    """Return a function that builds a network for the classes of a dataset.

    Its argument ``weights`` replaces ``backbone.weights``; ``None`` keeps that, and "none" is right for every backbone.
    Its argument ``role`` chooses another network that the method describes, where it does.
    """

    def build(weights: str | None = None, role: str | None = None) -> SegModel:
        from semiseg.models.bundle import segmentation_model

        own = config_of(cfg, role)
        try:
            made = segmentation_model(
                backbone(own, weights), decoder_factory(own), info.num_classes, info.bands
            )
        except UserError as error:
            raise placed(error, cfg, role) from error
        made.role = role if role in others(cfg) else None
        return made

    return build


def backbone(cfg: Config, weights: str | None = None) -> Backbone:
    """Build the backbone and tune it; ``weights`` replaces ``backbone.weights``."""
    from semiseg.models.segmodel import Backbone
    from semiseg.models.tuning import tuning_of

    made = _built(cfg, "backbone", **_weights(cfg, weights))
    if not isinstance(made, Backbone):
        raise UserError(
            "expected a subclass of semiseg.models.segmodel.Backbone, which says what maps it has.",
            key="backbone._target_",
            value=cfg["backbone"]["_target_"],
        )
    node = plain(cfg["backbone"])
    _, shared = split_shared(locate(node["_target_"]), node)
    try:
        return made.tune(tuning_of(shared))
    except UserError as error:
        raise _reason(error, "backbone") from error


def decoder_factory(cfg: Config) -> Callable[[Sequence[Stage]], Decoder]:
    """Return a function of the stages of a backbone that builds the decoder."""

    def build(stages: Sequence[Stage]) -> Decoder:
        # Called without Hydra, which would turn the stages into dicts.
        decoder = _built(cfg, "model", _partial_=True)
        try:
            result: Decoder = decoder(stages=stages)
        except Exception as error:  # a user's own class may raise anything
            raise _reason(error, "model") from error
        return result

    return build


def settings(record: type[Record], node: Mapping[str, Any]) -> Record:
    """Turn a node (trainer, evaluator, tracker) into its record; keys that are left out take their defaults."""
    # Merged into the types, since OmegaConf converts: the text "5" of a command line is a number then.
    typed = OmegaConf.merge(OmegaConf.structured(structured(cast(Any, record))), plain(node))
    values: Any = OmegaConf.to_container(typed)
    return record(**values)


def device(name: str, key: str = "trainer.device") -> torch.device:
    """Return the device of a name; "auto" takes a GPU where there is one.

    Args:
        name: "auto", "cpu", "cuda" or "cuda:N".
        key: key that the name was given with, for the message.

    Raises:
        UserError: there is no such device.
    """
    import torch

    if expected := wrong_device(name):
        raise UserError(expected, key=key, value=name)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda" if count else "cpu")
    chosen = torch.device(name)
    if chosen.type == "cuda" and (chosen.index or 0) >= count:
        there = ", ".join(["cpu", *(f"cuda:{index}" for index in range(count))])
        raise UserError(f"not on this machine, which has: {there}.", key=key, value=name)
    return chosen


def _weights(cfg: Config, weights: str | None) -> dict[str, str]:
    node = cfg["backbone"]
    if weights is None or weights == node.get("weights"):
        return {}
    if "weights" in node:
        return {"weights": weights}
    if weights == "none":
        return {}
    raise UserError(f"backbone={node['name']} takes no weights.", key="weights", value=weights)


def _built(cfg: Config, key: str, **arguments: Any) -> Any:
    """Build the node ``key``; nested nodes first. Constructors get plain lists and dicts."""
    node = plain(cfg[key])
    try:
        target = locate(node["_target_"])
        # The option has a name in any case; a constructor that does not take it would refuse.
        if not accepts(target, "name"):
            node.pop("name", None)
        node, _ = split_shared(target, node)
        return _instantiated(node, arguments)
    except BadTarget as error:
        raise UserError(f"{key}._target_={node['_target_']}: {error.reason}") from error
    except (InstantiationException, UserError) as error:
        raise _reason(error, key) from error


def _instantiated(node: dict[str, Any], arguments: dict[str, Any]) -> Any:
    """Instantiate a plain node; Hydra would look for the keys that the name of a folder such as ``${x}`` names."""
    texts = {key: value for key, value in node.items() if _looks_like_reference(value)}
    if not texts:
        return instantiate(node, _convert_="all", **arguments)
    rest = {key: value for key, value in node.items() if key not in texts}
    return instantiate(rest, _convert_="all", _partial_=True, **arguments)(**texts)


def _looks_like_reference(value: Any) -> bool:
    """Whether a plain value holds ``${``, outside of nodes that are built themselves."""
    if isinstance(value, str):
        return "${" in value
    if isinstance(value, Mapping):
        return "_target_" not in value and any(map(_looks_like_reference, value.values()))
    return isinstance(value, list) and any(map(_looks_like_reference, value))


def _reason(error: BaseException, key: str) -> Exception:
    """Return the error that a constructor raised, without Hydra's wrapping, which would hide its fields."""
    cause: BaseException | None = error
    place = key
    while cause is not None and isinstance(cause, InstantiationException):
        node = re.search(r"^full_key: (\S+)", str(cause), re.MULTILINE)
        place = node[1] if node else place
        cause = cause.__cause__
    if isinstance(cause, UserError):
        return UserErrors(_placed(each, place) for each in cause.errors)
    return cause if isinstance(cause, Interrupted) else UserError(f"{key} cannot be built: {cause or error}")


def _placed(error: UserError, node: str) -> UserError:
    """Add the node to the key of a constructor's error, which knows its arguments alone."""
    if error.key in (None, node) or "." in str(error.key):
        return error
    return UserError(error.expected, key=f"{node}.{error.key}", value=error.value)
