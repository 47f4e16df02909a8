"""Faults of networks by themselves, and with the sizes of batches and images; this imports torch when it is called."""

import math
import warnings

from omegaconf import DictConfig

from semiseg.config import build
from semiseg.config.other_networks import config_of, others, place, placed, roles
from semiseg.config.targets import locate
from semiseg.errors import UserError
from semiseg.settings import TrainerSettings


def build_on_meta(cfg: DictConfig, role: str | None, loaded: bool) -> None:
    """Build a network without memory; where it is ``loaded``, its weights file is read and compared with it."""
    import torch

    own = config_of(cfg, role)
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch remarks that nothing is copied to this device
        try:
            # Without weights first: a decoder that does not fit is told before a file is looked for.
            build.decoder_factory(own)(build.backbone(own, "none").stages)
            if loaded:
                build.backbone(own)
        except UserError as error:
            raise placed(error, cfg, role) from error


def is_probed(cfg: DictConfig, role: str | None) -> bool:
    """Whether the network of a role gets a fitted classifier: that of ``method=probe``, or all by ``init_head``."""
    if "probe" in cfg.method:
        own = others(cfg).get("probe") or {}
        return role == ("probe" if own.get("model") or own.get("backbone") else None)
    return bool(cfg.init_head != "random")


def check_probed(cfg: DictConfig, role: str | None) -> None:
    """Refuse a decoder that passes no maps of the backbone on to a classifier that is fitted to them."""
    import torch

    from semiseg.engine.linear_probe import require_linear
    from semiseg.models.bundle import segmentation_model

    own = config_of(cfg, role)
    asked = "method=probe" if "probe" in cfg.method else f"init_head={cfg.init_head}"
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = segmentation_model(build.backbone(own, "none"), build.decoder_factory(own), 2)
    try:
        require_linear(network, asked)
    except UserError as error:
        raise placed(error, cfg, role) from error


def check_batches(cfg: DictConfig) -> None:
    """Find batches that can't be accumulated or are too small for the decoder."""
    from semiseg.contracts.recipe import ChecksBatches

    method = build.method(cfg)
    if not isinstance(method, ChecksBatches):
        return
    parts = int(cfg.trainer.accumulate)
    decoders = {role: config_of(cfg, role)["model"] for role in roles(cfg)}
    needed = {
        role: getattr(locate(str(node["_target_"])), "smallest_batch", 1) for role, node in decoders.items()
    }
    most = max(needed, key=lambda role: needed[role])
    smallest, model = needed[most], f"{place('model', cfg, most)}={decoders[most]['name']}"
    trainer = build.settings(TrainerSettings, cfg.trainer)
    for key, size in method.batch_sizes(trainer).items():
        if size % parts:
            raise UserError(
                f"cannot divide {key}={size} into equal parts.", key="trainer.accumulate", value=parts
            )
        if size // parts < smallest:
            too_few = (
                f"too few images go through the network at once: {model} pools whole images, and its "
                f"batch norm needs {smallest} of them."
            )
            if parts > 1:
                raise UserError(f"with {key}={size} {too_few}", key="trainer.accumulate", value=parts)
            raise UserError(too_few, key=key, value=size)


def check_sizes(cfg: DictConfig) -> None:
    """Find crops and windows whose sides a backbone can't take; whole images are padded for it."""
    import torch

    from semiseg.models.segmodel import require_multiple

    with torch.device("meta"):
        backbones = [build.backbone(config_of(cfg, role), "none") for role in roles(cfg)]
    # Of all networks together: a size that suits one alone would be refused by the next.
    multiple = math.lcm(*(backbone.size_multiple for backbone in backbones))
    crop = cfg.trainer.crop_size
    height, width = [crop, crop] if isinstance(crop, int) else list(crop)
    require_multiple("trainer.crop_size", [crop] if isinstance(crop, int) else list(crop), multiple)
    sizes = {"trainer.crop_size": (height, width)}
    if cfg.evaluator.mode == "slide" and cfg.evaluator.window_edge == "shift":
        window = cfg.evaluator.window
        require_multiple("evaluator.window", [window], multiple)
        sizes["evaluator.window"] = (window, window)
    if cfg.evaluator.fit_to is not None:
        require_multiple("evaluator.fit_to", [cfg.evaluator.fit_to], multiple)
    for key, size in sizes.items():
        for backbone in backbones:
            backbone.require_size(key, size)
