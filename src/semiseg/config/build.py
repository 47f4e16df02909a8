"""Turn config nodes into objects; the only caller of Hydra's ``instantiate``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from semiseg.config.check_keys import wrong_device
from semiseg.config.targets import BadTarget, accepts, locate
from semiseg.errors import Interrupted, UserError

if TYPE_CHECKING:
    import torch

    from semiseg.contracts.dataset import DatasetInfo, SegDataset, Split
    from semiseg.contracts.training import Method, OptimizerSpec, Schedule
    from semiseg.data.augment import Augment
    from semiseg.engine.session import NetworkFactory
    from semiseg.models.segmodel import SegModel

Record = TypeVar("Record")

DECODER_ARGUMENTS = ("in_channels", "output_stride")
"""What a decoder gets from the backbone, beside the arguments of its config node."""


def dataset(cfg: DictConfig) -> SegDataset:
    """Build the dataset; raises ``UserError`` where its files are missing."""
    result: SegDataset = _built(cfg, "dataset")
    return result


def split(cfg: DictConfig, dataset: SegDataset) -> Split:
    """Divide a dataset, see ``make_split`` and ``measurable``; raises ``UserError`` where that cannot be done."""
    from semiseg.data.check import measurable
    from semiseg.splits.split import make_split

    made = make_split(
        dataset,
        str(cfg.split),
        cfg.split_family,
        cfg.split_id,
        cfg.unlabeled,
        cfg.split_lists,
        cfg.get("val_subset"),
    )
    return measurable(dataset, made)


def augment(cfg: DictConfig) -> Augment:
    """Build the weak and strong views."""
    result: Augment = _built(cfg, "augment")
    return result


def method(cfg: DictConfig) -> Method:
    """Build the training method."""
    result: Method = _built(cfg, "method")
    return result


def optimizer(cfg: DictConfig) -> OptimizerSpec:
    """Build what makes parameter groups and the optimizer."""
    result: OptimizerSpec = _built(cfg, "optimizer")
    return result


def schedule(cfg: DictConfig) -> Schedule:
    """Build the learning-rate schedule."""
    result: Schedule = _built(cfg, "schedule")
    return result


def network_factory(cfg: DictConfig, info: DatasetInfo) -> NetworkFactory:
    """Return a function that builds a network for the classes of a dataset.

    Its argument ``weights`` replaces ``backbone.weights`` where it is given; "none" suits every backbone.
    """

    def build(weights: str | None = None) -> SegModel:
        from semiseg.models.build import segmentation_model

        return segmentation_model(backbone(cfg, weights), decoder_factory(cfg), info.num_classes)

    return build


def backbone(cfg: DictConfig, weights: str | None = None) -> Any:
    """Build the backbone; ``weights`` replaces ``backbone.weights``."""
    return _built(cfg, "backbone", **_weights(cfg, weights))


def decoder_factory(cfg: DictConfig) -> Callable[..., Any]:
    """Return a function of ``in_channels`` and ``output_stride`` that builds the decoder."""

    def build(**shape: Any) -> Any:
        return _built(cfg, "model", **shape)

    return build


def settings(record: type[Record], node: Mapping[str, Any]) -> Record:
    """Turn a node (trainer, evaluator, tracker) into its record; keys that are left out take their defaults."""
    values: Any = OmegaConf.to_container(node, resolve=True) if isinstance(node, DictConfig) else node
    return record(**values)


def device(name: str, key: str = "trainer.device") -> torch.device:
    """Return the device of a name; "auto" takes a GPU where there is one.

    Args:
        name: "auto", "cpu", "cuda" or "cuda:N".
        key: where the name was given, for the message.

    Raises:
        UserError: there is no such device.
    """
    import torch

    if expected := wrong_device(name):
        raise UserError(f"{key}={name}: {expected}")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda" if count else "cpu")
    chosen = torch.device(name)
    if chosen.type == "cuda" and (chosen.index or 0) >= count:
        there = ", ".join(["cpu", *(f"cuda:{index}" for index in range(count))])
        raise UserError(f"{key}={name}: not on this machine, which has: {there}.")
    return chosen


def _weights(cfg: DictConfig, weights: str | None) -> dict[str, str]:
    if weights is None or weights == cfg.backbone.get("weights"):
        return {}
    if "weights" in cfg.backbone:
        return {"weights": weights}
    if weights == "none":
        return {}
    raise UserError(f"backbone={cfg.backbone.name} takes no weights.", key="weights", value=weights)


def _built(cfg: DictConfig, key: str, **arguments: Any) -> Any:
    """Build the node ``key``; nested nodes first. Plain lists and dicts reach the constructors.

    Raises:
        UserError: what the node names cannot be used, or refuses its arguments.
    """
    node = cfg[key].copy()
    node._set_parent(cfg)
    OmegaConf.set_struct(node, False)
    try:
        if not accepts(locate(node["_target_"]), "name"):
            node.pop("name", None)
        return instantiate(node, _convert_="all", **arguments)
    except BadTarget as error:
        raise UserError(f"{key}._target_={node['_target_']}: {error.reason}") from error
    except InstantiationException as error:
        raise _reason(error, key) from error


def _reason(error: BaseException, key: str) -> Exception:
    """The error that a constructor raised, below Hydra's wrapping."""
    cause: BaseException | None = error
    while cause is not None and isinstance(cause, InstantiationException):
        cause = cause.__cause__
    if isinstance(cause, UserError | Interrupted):
        return cause
    return UserError(f"{key} cannot be built: {cause or error}")
