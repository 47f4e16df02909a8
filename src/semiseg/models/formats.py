"""Names that published code bases give to the entries of their checkpoints, and the names in semiseg."""

from typing import NamedTuple

from semiseg.models.segmodel import InputConvention

CONVENTIONS = {
    "imagenet": InputConvention(),
    "coco": InputConvention("BGR", 1.0, (104.008, 116.669, 122.675), (1.0, 1.0, 1.0)),
}
"""The input of ImageNet weights, and that of the Caffe DeepLabV2 trained on COCO."""


class Format(NamedTuple):
    """Names of the entries of one code base.

    Args:
        name: name of the code base.
        mark: entry that none of the later formats has.
        names: prefixes and their replacements, of which the first that fits counts; "" leaves entries out.
        convention: input of its networks; ``None`` where they have several.
    """

    name: str
    mark: str
    names: dict[str, str]
    convention: InputConvention | None = CONVENTIONS["imagenet"]


CPS = Format(
    "CPS",
    "head.aspp.map_bn.weight",
    {
        "backbone.": "backbone.",
        "head.aspp.map_convs.": "decoder.branches.",
        "head.aspp.map_bn.": "decoder.project.0.",
        "head.aspp.red_conv.": "decoder.project.2.",
        "head.aspp.global_pooling_conv.": "decoder.pool.1.",
        "head.aspp.global_pooling_bn.": "decoder.pool.2.",
        "head.aspp.pool_red_conv.": "decoder.pool.4.",
        "head.aspp.red_bn.": "decoder.activate.0.",
        "head.reduce.": "decoder.reduce.",
        "head.last_conv.0.": "decoder.fuse.0.0.",
        "head.last_conv.1.": "decoder.fuse.0.1.",
        "head.last_conv.3.": "decoder.fuse.1.0.",
        "head.last_conv.4.": "decoder.fuse.1.1.",
        "classifier.": "classifier.",
    },
)
"""A branch of CPS, without the prefix ``branch1.`` or ``branch2.``; DeepLabV3PlusCPS on a deep stem."""

UNIMATCH_V2 = Format(
    "UniMatch V2",
    "head.scratch.output_conv.2.weight",
    {
        "backbone.mask_token": "",
        "backbone.": "backbone.net.",
        "head.projects.": "decoder.projects.",
        **{f"head.resize_layers.{number}.": f"decoder.resizes.{number}." for number in (0, 1, 3)},
        **{f"head.scratch.layer{number + 1}_rn.": f"decoder.reduces.{number}." for number in range(4)},
        **{
            f"head.scratch.refinenet{number + 1}.{name}.": f"decoder.fusions.{number}.{place}."
            for number in range(4)
            for name, place in (("resConfUnit1", "skip"), ("resConfUnit2", "unit"), ("out_conv", "project"))
        },
        # The coarsest level has nothing to add; the published code builds the unit for it and never runs it.
        "head.scratch.refinenet4.resConfUnit1.": "",
        "head.scratch.output_conv.0.": "decoder.output.",
        "head.scratch.output_conv.2.": "classifier.",
    },
)
"""DINOv2 and DPT; see ``semiseg.models.vit_weights`` for the names of the giant's encoder."""

FORMATS = (
    CPS,
    UNIMATCH_V2,
    Format(
        "CAC",
        "encoder.aspp.aspp1.atrous_conv.weight",
        {
            "encoder.backbone.": "backbone.",
            **{
                f"encoder.aspp.aspp{number + 1}.{name}.": f"decoder.branches.{number}.{place}."
                for number in range(4)
                for place, name in enumerate(("atrous_conv", "bn"))
            },
            "encoder.aspp.global_avg_pool.1.": "decoder.pool.1.0.",
            "encoder.aspp.global_avg_pool.2.": "decoder.pool.1.1.",
            "encoder.aspp.conv1.": "decoder.project.0.0.",
            "encoder.aspp.bn1.": "decoder.project.0.1.",
            "encoder.decoder.conv1.": "decoder.reduce.0.",
            "encoder.decoder.bn1.": "decoder.reduce.1.",
            "encoder.decoder.last_conv.0.": "decoder.fuse.0.0.",
            "encoder.decoder.last_conv.1.": "decoder.fuse.0.1.",
            "encoder.decoder.last_conv.4.": "decoder.fuse.2.0.",
            "encoder.decoder.last_conv.5.": "decoder.fuse.2.1.",
            "classifier.": "classifier.",
            "project.": "",
        },
    ),
    Format(
        "DST-CBC or DMTC",
        "classifier.0.convs.0.weight",
        {"backbone.": "backbone.", "classifier.0.": "classifier.", "rep.": ""},
        convention=None,
    ),
    Format(
        "ST++, UniMatch or CorrMatch with DeepLabV3+",
        "head.b4.gap.1.weight",
        {
            "backbone.": "backbone.",
            **{f"head.b{number}.": f"decoder.branches.{number}." for number in range(4)},
            "head.b4.gap.1.": "decoder.pool.1.0.",
            "head.b4.gap.2.": "decoder.pool.1.1.",
            "head.project.": "decoder.project.0.",
            "reduce.": "decoder.reduce.",
            "fuse.0.": "decoder.fuse.0.0.",
            "fuse.1.": "decoder.fuse.0.1.",
            "fuse.3.": "decoder.fuse.1.0.",
            "fuse.4.": "decoder.fuse.1.1.",
            "classifier.": "classifier.",
            # The correlation branch of CorrMatch, a head that a method attaches later.
            "proj.": "",
            "corr.": "",
        },
    ),
    Format(
        "ST++ with PSPNet",
        "head.conv5.0.conv1.0.weight",
        {
            "backbone.": "backbone.",
            **{f"head.conv5.0.conv{number + 1}.": f"decoder.branches.{number}." for number in range(4)},
            "head.conv5.1.": "decoder.fuse.0.0.",
            "head.conv5.2.": "decoder.fuse.0.1.",
            "head.conv5.5.": "classifier.",
        },
    ),
    Format(
        "ST++ with DeepLabV2",
        "classifier.3.weight",
        {"backbone.": "backbone.", "classifier.": "classifier.convs."},
    ),
    Format(
        "AdvSemiSeg (DeepLabV2 trained on COCO)",
        "layer5.conv2d_list.0.weight",
        {"layer5.conv2d_list.": "classifier.convs.", "": "backbone."},
        convention=CONVENTIONS["coco"],
    ),
    Format(
        "plain vision transformer",
        "patch_embed.proj.weight",
        {**dict.fromkeys(("mask_token", "head.", "head_dist.", "attn_pool."), ""), "": "backbone.net."},
        convention=None,
    ),
    Format(
        "SegFormer",
        "decode_head.linear_fuse.conv.weight",
        {
            "backbone.": "backbone.",
            **{f"decode_head.linear_c{number + 1}.proj.": f"decoder.linear.{number}." for number in range(4)},
            "decode_head.linear_fuse.conv.": "decoder.fuse.0.",
            "decode_head.linear_fuse.bn.": "decoder.fuse.1.",
            "decode_head.linear_pred.": "classifier.",
            # The classifier of mmseg's base class, which this head never uses.
            "decode_head.conv_seg.": "",
        },
    ),
    Format("MiT of SegFormer", "patch_embed1.proj.weight", {"head.": "", "": "backbone."}),
    Format("Xception-65 of UniMatch", "block1.sepconv1.depthwise.weight", {"": "backbone."}),
    Format("ResNet v1c with a deep stem", "conv1.0.weight", {"fc.": "", "": "backbone."}),
    Format("ResNet of torchvision", "conv1.weight", {"fc.": "", "": "backbone."}),
)
"""All formats of others, in the order in which their marks are looked for."""
