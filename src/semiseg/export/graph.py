"""A network as a program that needs no semiseg: traced once, written as ONNX or as a file of ``torch.export``."""

from __future__ import annotations

import io
import itertools
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule

from semiseg.contracts.training import Network
from semiseg.errors import UserError
from semiseg.models.lora import merge_low_rank
from semiseg.settings import EvaluatorSettings
from semiseg.tasks.inference import labels_and_probabilities

ExportFormat = Literal["onnx", "torch"]
Size = tuple[int, int]
INPUT = "images"
OUTPUTS = ("label", "confidence", "probabilities")
METADATA = "metadata.json"
"""Name of the extra file in a file of ``torch.export``."""

INSTALL = 'pip install "semiseg[export]"'


class Applied(nn.Module):
    """A network with all that a run does before and after it.

    Args:
        network: network on the CPU; it is put into evaluation mode and learns no more, and its low-rank matrices
            are merged into its weights.
        settings: settings of its evaluation, for whole images.
    """

    def __init__(self, network: Network, settings: EvaluatorSettings) -> None:
        super().__init__()
        merge_low_rank(network)  # two more layers for each would only cost time
        self.network = network.eval().requires_grad_(False)
        self.settings = settings

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Predict ``(N, H, W, 3) uint8`` RGB images, or bands ``(N, H, W, C) float32``.

        Returns:
            Label ``(N, H, W) uint8``; its probability ``(N, H, W) float32``; and the probabilities of all classes
            ``(N, K, H, W) float32``.
        """
        labels, maps = labels_and_probabilities(self.network, images.permute(0, 3, 1, 2), self.settings)
        return labels.to(torch.uint8), maps.gather(1, labels[:, None])[:, 0], maps


def smallest_side(network: Network, settings: EvaluatorSettings) -> int:
    """Return the smallest height and width in pixels that a traced network takes.

    ``torch.export`` traces sizes of one and of more pixels separately, so no map may shrink to one pixel, not even in
    the smallest view; and reflected padding needs as many pixels to reflect.
    """
    stride = network.coarsest_stride
    needed = 2 * stride
    if settings.resize_to is not None:
        return 2
    if settings.pad in ("size", "center") and settings.pad_to >= needed:
        needed = 2
    if settings.pad != "none" and settings.pad_value == "reflect":
        needed = max(needed, settings.pad_to)
    smallest = min(1.0, *settings.scales)
    return next(side for side in itertools.count(2) if int(side * smallest) >= needed)


def trace(network: Network, settings: EvaluatorSettings, size: Size | None = None) -> ExportedProgram:
    """Trace a network with all that it computes, for any number of images of any size, or of one.

    Args:
        network: network on the CPU.
        settings: settings of its evaluation, for whole images; with a ``size`` windows are possible too.
        size: height and width of all images; ``None`` leaves them open.

    Raises:
        UserError: windows, or a network that holds what ``torch.export`` cannot follow.
    """
    if settings.mode == "slide" and size is None:
        raise UserError(
            f"evaluator.mode=slide: the run slides a window of {settings.window} pixels over an image, and how many "
            "there are depends on its size, which an exported network cannot count. Add --mode whole to export it "
            "for whole images, or --size HEIGHT WIDTH for images of one size; `semiseg eval RUN --mode whole` measures "
            "what whole images change."
        )
    smallest = smallest_side(network, settings)
    height, width = size or (smallest + 30, smallest + 67)
    example = torch.zeros(2, height, width, network.channels, dtype=input_type(network))
    # Named sizes would have to be proven to fulfil every condition that tracing notes; these only have to fulfil it.
    sizes = {0: Dim.DYNAMIC}
    if size is None:
        sizes |= {1: Dim.DYNAMIC(min=smallest), 2: Dim.DYNAMIC(min=smallest)}
    try:
        with torch.no_grad(), _open_sizes():
            program = torch.export.export(Applied(network, settings), (example,), dynamic_shapes=(sizes,))
    except Exception as error:  # any layer of any library may refuse, each in its own way
        raise UserError(
            f"torch.export cannot follow {network_name(network)}: {_first_line(error)}"
        ) from error
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, GraphModule) else ():
            node.meta.pop("stack_trace", None)  # it holds paths of this machine
    return program


def input_type(network: Network) -> torch.dtype:
    """Return the number type of the images that an exported network takes: uint8 of RGB, float32 of bands."""
    return torch.float32 if network.convention.order == "bands" else torch.uint8


def network_name(network: Network) -> str:
    """Name a network by its parts."""
    parts = (getattr(part, "name", "") or type(part).__name__ for part in (network.backbone, network.decoder))
    return " and ".join(parts)


def as_torch(program: ExportedProgram, metadata: Mapping[str, Any]) -> bytes:
    """Return the content of a file for ``torch.export.load``; the metadata are its extra file ``METADATA``."""
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={METADATA: json.dumps(metadata, indent=2)})
    return buffer.getvalue()


def as_onnx(program: ExportedProgram, metadata: Mapping[str, Any], size: Size | None = None) -> bytes:
    """Return the content of an ONNX file; each of the metadata is a property of the model, as JSON.

    Args:
        program: result of ``trace``.
        metadata: plain values.
        size: size that it was traced for.

    Raises:
        UserError: the packages are missing, or the network holds an operation that ONNX has not.
    """
    require_onnx()
    sizes = {0: "batch"} if size else {0: "batch", 1: "height", 2: "width"}
    try:
        with torch.no_grad():
            written = torch.onnx.export(
                program,
                input_names=[INPUT],
                output_names=list(OUTPUTS),
                dynamic_shapes=(sizes,),
                dynamo=True,
                verbose=False,
            )
    except Exception as error:
        raise UserError(
            f"PyTorch cannot write this network as ONNX: {_first_line(error)} Try --format torch."
        ) from error
    assert written is not None
    proto = written.model_proto
    for key, value in metadata.items():
        proto.metadata_props.add(key=key, value=json.dumps(value))
    return bytes(proto.SerializeToString())


def require_onnx() -> None:
    """Raise ``UserError`` where a package of the extra ``export`` is missing."""
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise UserError(f"--format onnx needs {', '.join(missing)}: {INSTALL}")


def opened(content: bytes, form: ExportFormat) -> Callable[[Tensor], list[Tensor]]:
    """Open a written network without semiseg, as others will; return its forward pass.

    Raises:
        Exception: any error of the library on a faulty file.
    """
    if form == "torch":
        module = torch.export.load(io.BytesIO(content)).module()

        def run_torch(images: Tensor) -> list[Tensor]:
            with torch.no_grad():
                return list(module(images))

        return run_torch
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def run_onnx(images: Tensor) -> list[Tensor]:
        return [torch.from_numpy(array) for array in session.run(list(OUTPUTS), {INPUT: images.numpy()})]

    return run_onnx


@contextmanager
def _open_sizes() -> Iterator[None]:
    """Make timm compute with sizes that tracing leaves open; the results are the same.

    Its own floating-point rule for the padding of TensorFlow's convolutions makes ``torch.export`` simplify nested
    rounding, which takes minutes where this takes seconds; its own grid for the rotary positions of DINOv3 fixes the
    size of the example.
    """
    changed = []
    for module, name, make in (
        ("timm.layers.padding", "get_same_padding", lambda _: _same_padding),
        ("timm.layers.pos_embed_sincos", "_build_grid", _open_grid),
    ):
        place = sys.modules.get(module)
        if place is not None and (original := getattr(place, name, None)) is not None:
            changed.append((place, name, original))
            setattr(place, name, make(original))
    try:
        yield
    finally:
        for place, name, original in changed:
            setattr(place, name, original)


def _open_grid(original: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return timm's grid of coordinates; DINOv3's, from -1 to 1, for sides that may be open."""

    def grid(shape: Sequence[int], grid_type: str = "index", **options: Any) -> Tensor:
        usual = options.get("normalize_coords", "separate"), options.get("grid_indexing", "ij")
        if grid_type != "centered" or usual != ("separate", "ij"):
            return original(shape, grid_type, **options)
        offset = 0.5 + options.get("grid_offset", 0.0)
        axes = [(torch.arange(side, dtype=torch.float32) + offset) / torch.ones(side).sum() for side in shape]
        return 2 * torch.stack(torch.meshgrid(axes, indexing="ij"), -1) - 1

    return grid


def _same_padding(side: int, kernel_size: int, stride: int, dilation: int) -> Any:
    reach = (kernel_size - 1) * dilation + 1
    missing = (side + stride - 1) // stride * stride - stride + reach - side
    return missing if reach >= stride else torch.sym_max(missing, 0)


def _first_line(error: Exception) -> str:
    """The innermost reason of an exporter's error, on one line."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    line = next((line for line in str(cause).splitlines() if line.strip()), "")
    return f"{type(cause).__name__}: {line[:300].rstrip('.')}."
