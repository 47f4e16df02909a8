"""Reading weights files: no code in them is run, and none is loaded that does not fit."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from semiseg.errors import UserError
from semiseg.models.weights_content import content_of

State = dict[str, Tensor]
_WRAPPERS = ("state_dict", "model", "model_state_dict")
_SHOWN = 3
COCO = "resnet101COCO-41f33a49.pth"


def read_state(path: str | Path) -> State:
    """Read the tensors of a weights file (of safetensors or of torch, by its content); see ``state_of``.

    Raises:
        UserError: the file is missing, damaged, or holds something else than finite tensors.
    """
    return state_of(read_content(path), path)


def read_content(path: str | Path) -> Any:
    """Read a weights file; nothing but tensors and plain values is unpickled.

    Raises:
        UserError: the file is missing or damaged, or would have to run code to be read.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(
            f"Weights file not found: {path.absolute()}. backbone.weights takes none, a published file "
            "(imagenet and coco for resnet, pretrained for timm) or the path of a .pth, .pt or .safetensors file."
        )
    return content_of(path)


def state_of(content: Any, path: str | Path) -> State:
    """Return the state dict in the content of a weights file.

    One that is wrapped as ``{"state_dict": ...}`` or ``{"model": ...}`` is unwrapped, and the prefix ``module.``
    of data-parallel training is removed.

    Args:
        content: content of the file.
        path: path of the file, for the error.

    Raises:
        UserError: the content is something else than names and tensors, or holds a value that is not finite.
    """
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    if not isinstance(content, Mapping) or not content:
        raise UserError(f"{path} holds a {type(content).__name__}, not a state dict (names and tensors).")
    strange = [str(key) for key, value in content.items() if not isinstance(value, Tensor)]
    if strange:
        raise UserError(
            f"{path} is not a state dict: {len(strange)} of its {len(content)} entries are no tensors "
            f"({some(strange)}). Save only the network's state_dict()."
        )
    state = {str(key).removeprefix("module."): value for key, value in content.items()}
    require_finite(state, str(path))
    return state


def require_finite(state: Mapping[str, Tensor], source: str) -> None:
    """Refuse weights that are NaN or infinite, or become so as float32, in which networks compute.

    Args:
        state: names and tensors.
        source: name of the file, for the error.

    Raises:
        UserError: it names the first such tensors and counts the values of each.
    """
    counts = {key: count for key, value in state.items() if (count := _not_finite(value))}
    if not counts:
        return
    found = [f"{key} holds {_values(count)} that {_is(count)} not finite" for key, count in counts.items()]
    half = any(state[key].dtype == torch.float16 for key in counts)
    reason = " Numbers above 65504 are infinite in float16: save these weights as float32." if half else ""
    raise UserError(
        f"{source}: {some(found)} (NaN or infinite). A network cannot learn from such weights: take another file, or "
        f"an earlier state of the training that wrote it.{reason}"
    )


def _not_finite(tensor: Tensor) -> int:
    if tensor.is_meta or not tensor.is_floating_point():
        return 0
    return int((~torch.isfinite(tensor.float())).sum())


def _values(count: int) -> str:
    return "1 value" if count == 1 else f"{count} values"


def _is(count: int) -> str:
    return "is" if count == 1 else "are"


def misfits(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    """Describe how names and shapes of ``state`` differ from ``own``; empty where it can be loaded.

    Counters ``num_batches_tracked`` may be missing, as in files from before PyTorch 0.4.1.

    Args:
        own: state dict of the network.
        state: state dict of the file.

    Returns:
        One phrase for each kind of difference, with some names and the number of all.
    """
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in own]
    reshaped = [
        f"{key} {_shape(value)} in the file, {_shape(own[key])} in the network"
        for key, value in state.items()
        if key in own and own[key].shape != value.shape
    ]
    found = (
        (missing, "of the network are not in the file"),
        (unexpected, "of the file are not in the network"),
        (reshaped, "have another shape"),
    )
    return [f"{len(keys)} entries {what}: {some(keys)}" for keys, what in found if keys]


def load_state(
    module: nn.Module, state: Mapping[str, Tensor], source: str, target: str, hint: str = ""
) -> None:
    """Load ``state`` into ``module`` if names and shapes agree (see ``misfits``); on the meta device only compare.

    Args:
        module: network to load into.
        state: state dict of the file.
        source: name of the file, for the error.
        target: name of the network, for the error.
        hint: advice for the error.

    Raises:
        UserError: entries are missing, left over or of another shape; it names some and counts all.
    """
    own = module.state_dict()
    if found := misfits(own, state):
        lines = [f"  {difference}" for difference in found]
        raise UserError("\n".join([f"{source} does not fit {target}:", *lines, *([hint] if hint else [])]))
    if not any(value.is_meta for value in own.values()):
        # Not strict: counters of batch norm may be missing, and all else was compared above.
        module.load_state_dict(dict(state), strict=False)


def published_file(url: str) -> Path:
    """Return the local copy of a published weights file, fetched once into torch.hub's folder.

    Args:
        url: address of the file, whose name ends in the first 8 digits of its SHA-256, as torchvision's do.

    Raises:
        UserError: it is not there and can't be fetched, or its digest is wrong.
    """
    path = _local(url.rsplit("/", 1)[-1])
    digest = path.stem.rsplit("-", 1)[-1]
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(path), hash_prefix=digest, progress=False)
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"The ImageNet weights {path.name} are not on this machine and could not be fetched ({error}). "
                f"Copy the file to {path}, or give your own with backbone.weights=PATH, "
                "or start from random weights with backbone.weights=none."
            ) from error
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if not found.startswith(digest):
        raise UserError(
            f"{path} is damaged: its SHA-256 begins with {found[:8]}, not {digest}. Delete it and try again."
        )
    return path


def timm_file(name: str) -> Path:
    """Return the local copy of the file that timm publishes for a network, fetched once into the hub's cache.

    Args:
        name: timm's name of the network.

    Raises:
        UserError: timm is not installed, or the file is not there and can't be fetched.
    """
    try:
        import timm
        from huggingface_hub import hf_hub_download, try_to_load_from_cache
    except ImportError as error:
        raise UserError(
            f'the ImageNet weights of {name} are fetched with the package timm: pip install "semiseg[timm]"; or give '
            "a file with backbone.weights=PATH."
        ) from error
    known: Any = timm.get_pretrained_cfg(name)
    origin = known.hf_hub_id
    # Without a look at the server, which would be asked for every network that is built.
    if isinstance(cached := try_to_load_from_cache(origin, "model.safetensors"), str):
        return Path(cached)
    try:
        return Path(hf_hub_download(origin, "model.safetensors"))
    except Exception as error:  # the client of the hub raises its own types, and those of its transport
        raise UserError(
            f"The ImageNet weights of {name} ({origin}) are not on this machine and could not be fetched ({error}). "
            "Copy the published model.safetensors here and give it with backbone.weights=PATH, or start from random "
            "weights with backbone.weights=none."
        ) from error


def coco_file() -> Path:
    """Return the local copy of AdvSemiSeg's DeepLabV2 on ResNet-101, trained on COCO; it is never fetched.

    Raises:
        UserError: it is not there.
    """
    path = _local(COCO)
    if not path.is_file():
        raise UserError(
            f"{path} is not there. Its server is gone, so nothing is fetched: get a copy of {COCO} (the documentation "
            "of voldemortX/DST-CBC names one) and put it there, or give its place with backbone.weights=PATH. It is "
            "for backbone=resnet101 backbone.stem=plain.",
            key="backbone.weights",
            value="coco",
        )
    return path


def _local(name: str) -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / name


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"


def some(names: list[str]) -> str:
    """List the first names, and say how many more there are."""
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
