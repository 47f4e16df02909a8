"""Plain vision transformers of timm: DINOv2, DINOv3, CLIP, MAE and others with one stride."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from semiseg.declare import Ge, Len, Lt, Mark, checked
from semiseg.errors import UserError
from semiseg.models.positions import PositionResize, resized_positions
from semiseg.models.resnet import Weights
from semiseg.models.segmodel import Backbone, Converted, InputConvention, Stage
from semiseg.models.timm_library import not_fetched, require_known, timm_library
from semiseg.models.vit_weights import load_transformer, read_transformer

OPTION = "backbone=vit"
FAMILIES = ("vision_transformer", "deit", "eva")
"""Modules of timm whose networks may be plain transformers that take images of any size."""

LEVELS = {12: (2, 5, 8, 11), 24: (4, 11, 17, 23), 40: (9, 19, 29, 39)}
"""Blocks, counted from 0, whose outputs UniMatch V2 decodes, by the number of blocks."""

Count = Annotated[int, Ge(1)]


class ViT(Backbone):
    """A plain vision transformer that returns the maps of some of its blocks, all at the stride of its patches.

    Maps normalized images ``(N, 3, H, W)``, H and W multiples of the patch size, to one map ``(N, D, H/patch,
    W/patch)`` for each level. Class and register tokens are dropped. The parts are those of timm, in its names, below
    ``net``; blocks after the last level, the classifier and whatever else the maps do not depend on are not built.

    Source: ``model/semseg/dpt.py`` of LiheYoung/UniMatch-V2, whose encoder is DINOv2 without registers.

    Args:
        network: timm's name of the network, such as ``vit_small_patch14_dinov2.lvd142m``.
        weights: initial weights: "none", "pretrained" (fetched once by timm) or the path of a file: in timm's names,
            official of DINOv2, a checkpoint of UniMatch V2 or one of semiseg.
        ema: whether a checkpoint that holds both ``model`` and ``model_ema`` gives the latter, the average whose
            scores UniMatch V2 publishes.
        levels: numbers of the blocks whose outputs are returned, from 0; ``null`` takes UniMatch V2's for 12, 24 and
            40 blocks, and else the last block of each quarter.
        final_norm: whether every level passes through the last norm layer, as in UniMatch V2.
        position_resize: rule for images of another size than the position table's: "scale_offset" is that of DINOv2
            and UniMatch V2, "antialiased" that of timm and of DINOv2 with registers; ``null`` takes the one that the
            network was published with.
        drop_path: probability of leaving out the last block's branches in training (stochastic depth), growing
            linearly from 0 at the first block; UniMatch V2 has 0.
        image_size: side of the images that the position table is for; ``null`` takes timm's, 518 for DINOv2.
        patch_size: side of a patch; ``null`` takes timm's. This and the next three are for small random networks.
        embed_dim: channels of the tokens; ``null`` takes timm's.
        depth: number of blocks; ``null`` takes timm's.
        num_heads: number of attention heads; ``null`` takes timm's.
        name: name of the option in the config.

    Raises:
        UserError: timm is not installed or has no such plain transformer; a level, rule or size that the network does
            not have; or weights that are missing, damaged or of another network.
    """

    @checked
    def __init__(
        self,
        network: str,
        *,
        weights: Weights = "none",
        ema: bool = True,
        levels: Annotated[list[Annotated[int, Ge(0)]], Len(1)] | None = None,
        final_norm: bool = True,
        position_resize: PositionResize | None = None,
        drop_path: Annotated[float, Ge(0), Lt(1)] = 0.0,
        image_size: Count | None = None,
        patch_size: Count | None = None,
        embed_dim: Count | None = None,
        depth: Count | None = None,
        num_heads: Count | None = None,
        name: Annotated[str, Mark(role="label")] = "",
    ) -> None:
        super().__init__()
        self.network, self.name = network, name
        sizes = {
            "img_size": image_size,
            "patch_size": patch_size,
            "embed_dim": embed_dim,
            "depth": depth,
            "num_heads": num_heads,
        }
        given = {key: value for key, value in sizes.items() if value is not None}
        _require_plain(network)
        _require_own_sizes(weights, given)
        self.net = _create(network, weights == "pretrained", drop_path, given)
        self.size_multiple = int(self.net.patch_embed.patch_size[0])
        self.levels = _chosen(levels, len(self.net.blocks))
        self.position_resize = _rule(network, position_resize, self.net)
        self._leave_out_unused(final_norm)
        self.stages = (Stage(self.net.embed_dim, self.size_multiple),) * len(self.levels)
        known = timm_library(OPTION).get_pretrained_cfg(network)
        self.convention = InputConvention("RGB", 255.0, tuple(known.mean), tuple(known.std))
        self._weights_file = None if weights in ("none", "pretrained") else weights
        self._ema = ema
        if (found := self.read_weights()) is not None:
            load_transformer(self, found, network, len(self.net.blocks))
            self.convention = found.convention or self.convention

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the maps of the levels, ``(N, D, H/patch, W/patch)``, of normalized images ``(N, 3, H, W)``."""
        patches = self.net.patch_embed(x)
        rows, columns = patches.shape[1:3]
        tokens, turns = self._tokens(patches), self._turns(rows, columns)
        found = {}
        for number, block in enumerate(self.net.blocks):
            tokens = self._passed(block, tokens, None if turns is None else turns[number])
            if number in self.levels:
                found[number] = self._map(tokens, rows, columns)
        return [found[number] for number in self.levels]

    def part_modules(self) -> dict[str, list[nn.Module]]:
        """Return its modules from input to output: "embed", "block_1", ..., the last one with the norm behind it."""
        tokens = [value for _, value in self.net.named_parameters(recurse=False)]
        blocks: dict[str, list[nn.Module]] = {
            f"block_{number}": [block] for number, block in enumerate(self.net.blocks, 1)
        }
        # A learned rotation of all blocks belongs to the input, as a position table does.
        learned = [each for each in (getattr(self.net, "rope", None),) if each is not None]
        embed = [nn.ParameterList(tokens), self.net.patch_embed, *learned, self.net.norm_pre]
        last = f"block_{len(self.net.blocks)}"
        return {"embed": embed, **blocks, last: [*blocks[last], self._norm]}

    def read_weights(self) -> Converted | None:
        """Read the file of the initial weights, which may hold those of decoder and classifier too."""
        return None if self._weights_file is None else read_transformer(self._weights_file, self._ema)

    @property
    def _norm(self) -> nn.Module:
        # Networks that classify the mean of their patches have it behind the mean.
        norm: nn.Module = self.net.fc_norm if isinstance(self.net.norm, nn.Identity) else self.net.norm
        return norm

    def _leave_out_unused(self, final_norm: bool) -> None:
        """Remove what the maps do not depend on, which an optimizer would wait for in vain."""
        net = self.net
        net.blocks = net.blocks[: max(self.levels) + 1]
        net.attn_pool = None
        for name in ("head", "head_dist"):
            if hasattr(net, name):
                setattr(net, name, nn.Identity())
        if not final_norm:
            net.norm, net.fc_norm = nn.Identity(), nn.Identity()
        elif not isinstance(net.norm, nn.Identity):
            net.fc_norm = nn.Identity()

    def _tokens(self, patches: Tensor) -> Tensor:
        """Put class and register tokens before the patches ``(N, rows, columns, D)``, and add the positions."""
        net = self.net
        count, rows, columns, width = patches.shape
        tokens = patches.reshape(count, rows * columns, width)
        extra = [getattr(net, name, None) for name in ("cls_token", "reg_token", "dist_token")]
        first = [each.expand(count, -1, -1) for each in extra if each is not None]
        prefix = sum(each.shape[1] for each in first)
        before = prefix if net.no_embed_class else 0
        whole = torch.cat([*first, tokens], 1)
        if net.pos_embed is not None:
            table = resized_positions(
                net.pos_embed,
                (rows, columns),
                net.patch_embed.grid_size,
                prefix - before,
                self.position_resize or "antialiased",
            )
            whole = torch.cat([whole[:, :before], whole[:, before:] + table], 1) if before else whole + table
        result: Tensor = net.norm_pre(net.pos_drop(whole))
        return result

    def _turns(self, rows: int, columns: int) -> Sequence[Tensor] | None:
        """Return the rotary positions of each block; ``None`` where the network has none."""
        rope = getattr(self.net, "rope", None)
        if rope is None:
            return None
        turns = rope.get_embed(shape=(rows, columns))
        return turns if getattr(self.net, "rope_mixed", False) else [turns] * len(self.net.blocks)

    def _passed(self, block: nn.Module, tokens: Tensor, turns: Tensor | None) -> Tensor:
        extra: dict[str, Any] = {} if turns is None else {"rope": turns}
        result: Tensor = block(tokens, **extra)
        return result

    def _map(self, tokens: Tensor, rows: int, columns: int) -> Tensor:
        patches: Tensor = self._norm(tokens)[:, self.net.num_prefix_tokens :]
        return patches.transpose(1, 2).reshape(tokens.shape[0], -1, rows, columns)


def usual_levels(depth: int) -> tuple[int, int, int, int]:
    """Return the four blocks, counted from 0, that are decoded: UniMatch V2's, or the last one of each quarter."""
    if depth in LEVELS:
        return LEVELS[depth]
    first, second, third, last = (max(-(-depth * quarter // 4) - 1, 0) for quarter in (1, 2, 3, 4))
    return first, second, third, last


def _chosen(levels: Sequence[int] | None, depth: int) -> tuple[int, ...]:
    if levels is None:
        return usual_levels(depth)
    if max(levels) >= depth or list(levels) != sorted(set(levels)):
        raise UserError(
            f"the network has {depth} blocks. Give numbers from 0 to {depth - 1} in ascending order, such as "
            f"{list(dict.fromkeys(usual_levels(depth)))}.",
            key="levels",
            value=list(levels),
        )
    return tuple(levels)


def _rule(network: str, given: PositionResize | None, net: Any) -> PositionResize | None:
    """Return the rule of a network's position table; ``None`` where it has no table."""
    if net.pos_embed is None:
        if given is not None:
            raise UserError(
                f"{network} has rotary positions and no table to resize. Leave it out.",
                key="position_resize",
                value=given,
            )
        return None
    original = "dinov2" in network and "_reg" not in network
    return given or ("scale_offset" if original else "antialiased")


def _require_own_sizes(weights: str, given: Mapping[str, int]) -> None:
    if weights == "pretrained" and given:
        raise UserError(
            "the published weights are for the network's own sizes. Leave out image_size, patch_size, embed_dim, depth "
            "and num_heads, or give backbone.weights=none.",
            key="weights",
            value=weights,
        )


def _require_plain(network: str) -> None:
    """Refuse what is no plain transformer by its name, before it is built."""
    timm = timm_library(OPTION)
    require_known(network, OPTION, "network")
    if not timm.models.is_model_in_modules(network.split(".")[0], FAMILIES):
        raise _refusal(network, "it is no plain transformer that takes images of any size")


def _create(network: str, pretrained: bool, drop_path: float, sizes: dict[str, int]) -> Any:
    timm = timm_library(OPTION)
    options = {"dynamic_img_size": True, "drop_path_rate": drop_path, **sizes}
    try:
        net = timm.create_model(network, pretrained=pretrained, num_classes=0, **options)
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise
        raise not_fetched(network, OPTION, error) from error
    except (TypeError, ValueError, NotImplementedError, AssertionError, ZeroDivisionError) as error:
        reason = f"timm cannot build it ({error or type(error).__name__})"
        raise (
            UserError(f"{reason}.", key="network", value=network) if sizes else _refusal(network, reason)
        ) from error
    if lacking := _lacking(net):
        raise _refusal(network, lacking)
    return net


def _lacking(net: Any) -> str | None:
    """Say what a network of timm lacks to serve as a plain transformer."""
    if not all(hasattr(net, name) for name in ("blocks", "norm", "pos_embed", "no_embed_class", "norm_pre")):
        return f"{type(net).__name__} has not the parts of a plain transformer"
    if type(net.patch_embed).__name__ != "PatchEmbed":
        return f"its patches come from a {type(net.patch_embed).__name__}, not from one convolution"
    sides = set(net.patch_embed.patch_size)
    return None if len(sides) == 1 else "its patches are not square"


def _refusal(network: str, reason: str) -> UserError:
    return UserError(
        f"{reason}. backbone=vit takes those, such as vit_base_patch14_dinov2 or vit_base_patch16_224; for a network "
        f"whose maps have several strides give backbone=timm backbone.name={network}.",
        key="network",
        value=network,
    )
