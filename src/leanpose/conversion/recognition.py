"""What network a checkpoint is of, told from the names and shapes of its weights alone.

Each family leaves its own marks: the head's names say which paper's code wrote the file, the shapes say width, depth,
number of keypoints and, where a layer is tied to the image's size, that too.

The token networks by the code that wrote them: TokenPose's own code keeps everything under `features.` (S) or under
`pre_feature.` and `transformer.`; PPT's does the same, with a level less in the names around the attention; SDPose's
and DistilPose's, both on mmpose 0.29, have `backbone.` and `keypoint_head.tokenpose.` (heatmaps) or
`keypoint_head.tokenhead.` (coordinates), and SDPose's own transformer is `transformer_layer1`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from leanpose.conversion.checkpoint import StoredArray
from leanpose.data.records import pairs_of_order
from leanpose.errors import LeanposeError
from leanpose.models.backbones import create_backbone
from leanpose.models.layers import VALUES_PER_KEYPOINT, sine_position
from leanpose.skeleton import COCO17, CROWDPOSE14, MPII16, OF_DATASET, WHOLEBODY133, Skeleton

Size = tuple[int, int]

SUPPORTED = (
    "RTMPose and DWPose, SimCC, SimpleBaseline, HRNet, DeepPose, RLE and ViTPose of mmpose, TokenPose, PPT, SDPose, "
    "DistilPose and SDPose-Reg, mmpose's Hourglass and MSPN, TransPose, and the backbones ResNet-18/34/50/101/152, "
    "HRNet-W32/W48, CSPNeXt and MobileNetV2/V3/V4"
)
_NOT_BACKBONE = re.compile(
    r"(fc|head|classifier|final_layer|incre_modules|downsamp_modules|keypoint_head|deconv_layers)\."
)
_CSPNEXT = {12: "tiny", 16: "s", 24: "m", 32: "l", 40: "x"}  # by the stem's first width
_CSPNEXT_STAGE = re.compile(r"^stage([1-4])\.")
_SMALL_OF_TIMM = (
    "resnet18", "resnet34", "mobilenetv2_100", "mobilenetv3_small_100", "mobilenetv3_large_100", "mobilenetv4_conv_small",
)  # fmt: skip
_RESNET = {6: 50, 23: 101, 36: 152}  # by the blocks of the third stage
_VIT = {  # by width: name, layers, heads
    384: ("vitpose_s", 12, 12),
    768: ("vitpose_b", 12, 12),
    1024: ("vitpose_b", 24, 16),
    1280: ("vitpose_b", 32, 16),
}
_HEAD = re.compile(r"(?:(?:keypoint_)?head\.)?(?:deconv_head\.)?")  # the prefixes that codes give a head
_LIKELY_COUNTS = (17, 14, 16, 133, 26, 19)  # of keypoints, by frequency
_TOKEN_LAYER = re.compile(r"transformer(?:_layer)?(?P<stage>\d?)\.layers\.(?P<layer>\d+)\.")
_SKELETONS = {len(skeleton): skeleton for skeleton in (COCO17, CROWDPOSE14, MPII16, WHOLEBODY133)}


@dataclass(frozen=True)
class RecognisedNetwork:
    """A network that is known.

    Attributes:
        family: the paper's name for it.
        fits: the model names that it fits, the likeliest first, each with the settings in which it differs from them.
        keypoints: number of keypoints.
        input_size: of the image (height, width); None where no weight depends on it.
        ask: whether the file does not tell which of `fits` it is, in a way that changes what the network computes.
    """

    family: str
    fits: dict[str, dict[str, Any]]
    keypoints: int
    input_size: Size | None = None
    ask: bool = False


def recognise_network(tensors: Mapping[str, Tensor]) -> RecognisedNetwork | None:
    """What the weights are of; None: no network with a head that is known.

    Raises:
        LeanposeError: the marks are those of a known family, but the shapes fit none of its networks.
    """
    for mark, recognise in _FAMILIES.items():
        if any(re.fullmatch(mark, key) for key in tensors):
            try:
                return recognise(tensors)
            except KeyError:  # a weight is missing, or of a size that no published network has
                return None
    return None


def unwrap_distiller(tensors: Mapping[str, Tensor], stage: int | None = None) -> tuple[dict[str, Tensor], str]:
    """The trained network of a DWPose distiller's file, and a sentence on what was taken; other files come back as they
    are.

    In stage 1 the student is the network. In stage 2 only the student's head is trained, on the features of the
    teacher's
    backbone: the network is the two together. The two stages have the same names; in the published recipes the teacher
    of stage 1 is a larger network, that of stage 2 the same one.

    Args:
        stage: 1 or 2, if it is known better.

    Raises:
        LeanposeError: the file has a teacher but no student, or no teacher's backbone where that is part of the
            network.
    """
    student = {key[8:]: value for key, value in tensors.items() if key.startswith("student.")}
    teacher = {key[8:]: value for key, value in tensors.items() if key.startswith("teacher.")}
    if not student and not teacher:
        return dict(tensors), ""
    if not student:
        raise LeanposeError("The checkpoint is of a distillation, but has no student in it.")
    if stage is None:
        same = student.keys() == teacher.keys() and all(v.shape == teacher[k].shape for k, v in student.items())
        aligned = any(key.startswith("distill_losses.loss_fea") for key in tensors)
        stage = 2 if same and not aligned else 1
    if stage == 1:
        return student, "the student of a distillation (stage 1) was taken"
    merged = {key: value for key, value in teacher.items() if key.startswith("backbone.")}
    if not merged:
        raise LeanposeError("The checkpoint has no teacher, whose backbone is a part of the network after stage 2.")
    merged |= {key: value for key, value in student.items() if not key.startswith("backbone.")}
    return merged, "the teacher's backbone and the student's head were taken, as after stage 2 of DWPose"


def recognise_backbone(tensors: Mapping[str, Tensor]) -> tuple[str, dict[str, Tensor]] | None:
    """The feature extractor of a checkpoint: timm's name for it, and its weights by timm's names; None: none that is
    known."""
    inner = {key[9:]: value for key, value in tensors.items() if key.startswith("backbone.")} or dict(tensors)
    inner = {key: value for key, value in inner.items() if not _NOT_BACKBONE.match(key)}
    if "stem.0.conv.weight" in inner:
        variant = _CSPNEXT.get(inner["stem.0.conv.weight"].shape[0])
        named = {_CSPNEXT_STAGE.sub(lambda stage: f"stages.{int(stage[1]) - 1}.", k): v for k, v in inner.items()}
        return None if variant is None else (f"cspnext_{variant}", named)
    branch = inner.get("stage4.0.branches.0.0.conv1.weight")
    if branch is not None and branch.shape[0] in (32, 48):
        return f"hrnet_w{branch.shape[0]}", inner
    # A ResNet of bottlenecks without other additions.
    blocks = len({key.split(".")[1] for key in inner if key.startswith("layer3.")})
    plain = {"conv1.weight", "layer1.0.conv3.weight"} <= inner.keys()
    if blocks in _RESNET and plain and not any(".se." in key or "attn" in key for key in inner):
        return f"resnet{_RESNET[blocks]}", inner
    return _backbone_by_shapes(inner)


def _backbone_by_shapes(tensors: Mapping[str, Tensor]) -> tuple[str, dict[str, Tensor]] | None:
    """The network of timm whose weights have exactly these names and shapes, but for those of a classifier."""
    if not tensors.keys() & {"conv1.weight", "conv_stem.weight"}:
        return None
    for variant in _SMALL_OF_TIMM:
        with torch.device("meta"):
            expected = {k: v.shape for k, v in create_backbone(variant).state_dict().items()}
        inner = {key: value for key, value in tensors.items() if key in expected}
        rest = {key.split(".")[0] for key in tensors.keys() - expected.keys()}
        counted = {key for key in expected if not key.endswith("num_batches_tracked")}
        named = rest <= {"conv_head", "norm_head", "bn2"} and counted <= inner.keys()
        if named and all(value.shape == expected[key] for key, value in inner.items()):
            return variant, inner
    return None


def has_only_a_backbone(tensors: Mapping[str, Tensor]) -> bool:
    """Whether a network starts from these weights by its backbone alone, since no model here has their head.

    There is no head, or a classifier's, or the heatmap head with which the CSPNeXts are trained from which RTMPose
    starts.
    """
    headless = not any(key.startswith(("head.", "keypoint_head.")) for key in tensors)
    classifies = any(key in tensors for key in ("head.fc.weight", "fc.weight", "classifier.weight"))
    of_cspnext = {"backbone.stem.0.conv.weight", "head.final_layer.weight"} <= tensors.keys()
    return headless or classifies or (of_cspnext and "head.mlp.1.weight" not in tensors)


def recognise_skeleton(keypoints: int, dataset: Mapping[str, Any]) -> tuple[Skeleton, str]:
    """The skeleton of a checkpoint, and a sentence on how it is known.

    Args:
        keypoints: number of keypoints.
        dataset: what mmpose has noted of its data; empty where it has not.

    Raises:
        LeanposeError: nothing tells what the keypoints are.
    """
    known = OF_DATASET.get(str(dataset.get("dataset_name", "")))
    if known is not None and len(known) == keypoints:
        return known, f"keypoints: {known.name}, as the file says"
    if (described := _described_skeleton(keypoints, dataset)) is not None:
        return described, f"keypoints: {described.name}, as the file describes them"
    if keypoints not in _SKELETONS:
        raise LeanposeError(
            f"The checkpoint predicts {keypoints} keypoints without names; give a skeleton (--skeleton NAME or FILE.yaml)."
        )
    guess = _SKELETONS[keypoints]
    return guess, f"keypoints: {guess.name}, going by their number alone (--skeleton says otherwise)"


def _described_skeleton(keypoints: int, dataset: Mapping[str, Any]) -> Skeleton | None:
    """From the names, links and constants that mmpose stores."""
    names, links, sigmas = (dataset.get(key) for key in ("keypoint_id2name", "skeleton_links", "sigmas"))
    if not isinstance(names, Mapping) or set(names) != set(range(keypoints)):
        return None
    stored = sigmas.numbers() if isinstance(sigmas, StoredArray) else None
    values = {
        "name": str(dataset.get("dataset_name", "unnamed")) + str(keypoints),
        "keypoints": [str(names[i]) for i in range(keypoints)],
        "limbs": [[a, b] for a, b in links] if isinstance(links, list) else [],
        "sigmas": [round(float(s), 6) for s in stored] if stored is not None and stored.shape == (keypoints,) else None,
    }
    try:
        if (order := dataset.get("flip_indices")) is not None:
            values["pairs"] = pairs_of_order(order, keypoints, "flip_indices")
        return Skeleton.from_dict(values)
    except (LeanposeError, TypeError, ValueError):
        return None


def _variant_and_head(tensors: Mapping[str, Tensor]) -> tuple[str, dict[str, Tensor]]:
    """timm's name of the backbone, empty where it is not known, and all weights without the prefixes of heads."""
    backbone = recognise_backbone(tensors)
    return backbone[0] if backbone else "", {_HEAD.sub("", key, count=1): value for key, value in tensors.items()}


def _size_of_area(pixels: float) -> Size | None:
    """The usual crop of so many pixels: 4:3, or else a square; None where neither has whole sides."""
    for aspect in (4 / 3, 1.0, 5 / 4):
        width = round(math.sqrt(pixels / aspect))
        height = round(width * aspect)
        if abs(height * width - pixels) < 0.5 and width % 16 == 0 and height % 16 == 0:
            return height, width
    return None


def _simcc_split(x_bins: int, y_bins: int, features: int, stride: float) -> tuple[Size, float]:
    """The image's size and the bins a pixel, from the numbers of bins and of positions of the feature map."""
    split = math.sqrt(x_bins * y_bins / (features * stride * stride))
    return (round(y_bins / split), round(x_bins / split)), round(split, 4)


def _rtmpose(tensors: Mapping[str, Tensor]) -> RecognisedNetwork:
    variant = _CSPNEXT[tensors["backbone.stem.0.conv.weight"].shape[0]]
    keypoints, _, kernel_size, _ = tensors["head.final_layer.weight"].shape
    embed_dim, values = tensors["head.gau.o.weight"].shape
    x, y, mlp = (tensors[f"head.{name}.weight"].shape for name in ("cls_x", "cls_y", "mlp.1"))
    size, split = _simcc_split(x[0], y[0], mlp[1], 32)
    options = {
        "backbone": f"cspnext_{variant}",
        "kernel_size": kernel_size,
        "embed_dim": embed_dim,
        "gau_qk_dim": tensors["head.gau.gamma"].shape[1],
        "expansion": values // embed_dim,
        "simcc_split_ratio": split,
    }
    nets = ("rtmpose", "dwpose") if keypoints == 133 else ("rtmpose",)
    fits = {f"{net}_{'t' if variant == 'tiny' else variant}": options for net in nets}
    return RecognisedNetwork("RTMPose", fits, keypoints, size)


def _vitpose(tensors: Mapping[str, Tensor]) -> RecognisedNetwork:
    keypoints = tensors["head.final_layer.weight"].shape[0]
    width = tensors["backbone.patch_embed.projection.weight"].shape[0]
    layers = {key.split(".")[2] for key in tensors if key.startswith("backbone.layers.")}
    if width not in _VIT or len(layers) != _VIT[width][1] or "backbone.pos_embed" not in tensors:
        raise LeanposeError(
            f"The checkpoint looks like a ViTPose with {len(layers)} layers of width {width}; leanpose supports "
            "12 of 384 or 768, 24 of 1024 and 32 of 1280."
        )
    name, depth, heads = _VIT[width]
    options: dict[str, Any] = {"embed_dim": width, "depth": depth, "num_heads": heads}
    if "head.deconv_layers.0.weight" not in tensors:
        options["decoder"] = "simple"
        name = "vitpose_s_simple" if name == "vitpose_s" else name
    size = _size_of_area(tensors["backbone.pos_embed"].shape[1] * 16 * 16)
    return RecognisedNetwork("ViTPose", {name: options}, keypoints, size)


def _convolutional(tensors: Mapping[str, Tensor]) -> RecognisedNetwork | None:
    """SimpleBaseline, HRNet and SimCC."""
    variant, head = _variant_and_head(tensors)
    keypoints, _, *kernel = head["final_layer.weight"].shape
    if kernel != [1, 1] or not variant.startswith(("hrnet", "resnet")):
        return None
    if variant.startswith("hrnet"):
        return RecognisedNetwork("HRNet", {variant: {}}, keypoints)
    layers = sorted(
        (int(match[1]), tuple(value.shape))
        for key, value in head.items()
        if (match := re.fullmatch(r"deconv_layers\.(\d+)\.weight", key)) and value.ndim == 4
    )
    if not layers or any(shape[2:] != (4, 4) for _, shape in layers):
        return None
    widths = tuple(shape[1] for _, shape in layers)
    options: dict[str, Any] = {} if widths == (256, 256, 256) else {"deconv_channels": widths}
    if "mlp_head_x.weight" not in head:
        return RecognisedNetwork("SimpleBaseline", {variant.replace("resnet", "simplebaseline_r"): options}, keypoints)
    x, y = head["mlp_head_x.weight"].shape, head["mlp_head_y.weight"].shape
    size, split = _simcc_split(x[0], y[0], x[1], 32 / 2 ** len(widths))
    options |= {"simcc_split_ratio": split, "backbone": variant}
    return RecognisedNetwork("SimCC", {"simcc_r50": options}, keypoints, size)


def _deeppose(tensors: Mapping[str, Tensor]) -> RecognisedNetwork | None:
    """DeepPose and RLE."""
    variant, head = _variant_and_head(tensors)
    count = head["fc.weight"].shape[0]
    if not variant.startswith("resnet") or count % 2 or count == 1000:
        return None
    flow = any("flow_model" in key or "flow" in key.split(".") for key in tensors)
    if flow or (count // 2 not in _LIKELY_COUNTS and count % 4 == 0 and count // 4 in _LIKELY_COUNTS):
        return RecognisedNetwork("RLE", {"rle_r50": {"backbone": variant}}, count // 4)
    return RecognisedNetwork("DeepPose", {variant.replace("resnet", "deeppose_r"): {}}, count // 2)


def _token_network(tensors: Mapping[str, Tensor]) -> RecognisedNetwork:
    """TokenPose, PPT, SDPose, DistilPose and SDPose-Reg."""
    prefix = next(key for key in tensors if key.endswith("keypoint_token")).removesuffix("keypoint_token")
    keypoints, width = tensors[f"{prefix}keypoint_token"].shape[1:]
    layers = {(m["stage"], m["layer"]) for key in tensors if (m := _TOKEN_LAYER.search(key.removeprefix(prefix)))}
    head = [tensors[f"{prefix}mlp_head.{i}.weight"] for i in (1, 3) if f"{prefix}mlp_head.{i}.weight" in tensors]
    patch = tensors.get(f"{prefix}patch_to_embedding.weight")
    if not layers or not head or patch is None:
        raise LeanposeError("The checkpoint has TokenPose's tokens, but not its transformer, head and patches.")
    backbone, channels, sizes = _token_backbone(tensors)
    stride = 1 if backbone == "image" else 4
    position = tensors.get(f"{prefix}pos_embedding")
    size, patch_size = _token_sizes(patch.shape[1] // channels, stride, head[-1].shape[0], position)
    depth = len(layers)
    options: dict[str, Any] = {
        "backbone": backbone,
        "patch_size": patch_size,
        "embed_dim": width,
        "depth": depth,
        "stages": len({stage for stage, _ in layers}),
        # No shape tells the heads of the attention: these are the papers'.
        "num_heads": 16 if backbone == "image" else 12 if depth == 24 else 8,
        "head_hidden": head[0].shape[0] if len(head) == 2 else None,
        **sizes,
    }
    if "tokenhead." in prefix:
        values = head[-1].shape[0]
        outputs = next((name for name, count in VALUES_PER_KEYPOINT.items() if count == values), None)
        if outputs is None:
            raise LeanposeError(
                f"The checkpoint has {values} outputs per keypoint; DistilPose has 2 or 5, SDPose-Reg 4."
            )
        options["outputs"] = outputs
        if outputs == "rle":
            return RecognisedNetwork("SDPose-Reg", {"sdpose_reg": options}, keypoints, size)
        name = "distilpose_l" if backbone == "hrnet_w48" else "distilpose_s"
        return RecognisedNetwork("DistilPose", {name: options}, keypoints, size)
    names = _token_names(options)
    if any(".transformer_layer1." in key for key in tensors):
        return RecognisedNetwork("SDPose", {names["sdpose"]: options}, keypoints, size)
    if any(key.startswith(prefix) and key.endswith(".0.norm.weight") for key in tensors):
        pruned = {**options, "prune_layers": tuple(layer for layer in (3, 6, 9) if layer < depth)}
        fits = {names["ppt"]: pruned, names["tokenpose"]: options}
        return RecognisedNetwork("PPT", fits, keypoints, size, ask=True)
    return RecognisedNetwork("TokenPose", {names["tokenpose"]: options}, keypoints, size)


def _token_backbone(tensors: Mapping[str, Tensor]) -> tuple[str, int, dict[str, Any]]:
    """Which one it is, how many channels its features have, and what its sizes are."""
    inner = {re.sub(r"^(backbone|pre_feature|features)\.", "", key): value for key, value in tensors.items()}
    first = inner.get("layer1.0.conv1.weight")
    if first is None:
        return "image", 3, {}
    sizes = {"stage1_width": first.shape[0]}
    branch = inner.get("stage3.0.branches.0.0.conv1.weight")
    if branch is None:
        return "stem", 4 * first.shape[0], {**sizes, "stem_width": inner["conv1.weight"].shape[0]}
    width = branch.shape[0]
    if width not in (32, 48):
        raise LeanposeError(f"The checkpoint's HRNet is {width} wide; leanpose has those of TokenPose, 32 and 48.")
    four = any(key.startswith("stage4.") for key in inner)
    return f"hrnet_w{width}", width, {**sizes, "backbone_stages": 4 if four else 3}


def _token_sizes(patch_area: int, stride: int, head: int, position: Tensor | None) -> tuple[Size, Size]:
    """Of the image and of a patch, both (height, width), from how many pixels each has.

    Raises:
        LeanposeError: the position embedding was learned, or is for another grid than the one that leanpose computes.
    """
    size = None
    if position is not None:
        size = _size_of_area(position.shape[1] * patch_area * stride * stride)
    if size is None and head > 64:  # a heatmap at stride 4
        size = _size_of_area(head * 16)
    size = size or (256, 192)
    # Patches have nearly the aspect of the image.
    sides = [(height, patch_area // height) for height in range(1, patch_area + 1) if patch_area % height == 0]
    patch = min(sides, key=lambda side: abs(math.log(side[0] / side[1] * size[1] / size[0])))
    rows, columns = size[0] // stride // patch[0], size[1] // stride // patch[1]
    if position is not None and not (
        rows * columns == position.shape[1]
        and torch.allclose(position[0], sine_position(rows, columns, position.shape[2]), atol=1e-3)
    ):
        raise LeanposeError(
            f"The checkpoint's position embedding for {position.shape[1]} patches is not the fixed one of sines for an "
            f"image of {size[0]}x{size[1]}, and leanpose's TokenPose has no other."
        )
    return size, patch


def _token_names(options: dict[str, Any]) -> dict[str, str]:
    """The nearest variant of each family of token networks that predict heatmaps."""
    backbone, depth = options["backbone"], options["depth"]
    small = "s_v2" if options["patch_size"] == (2, 2) else "s_v1"
    large = "hrnet_w48" if options.get("backbone_stages") == 4 else "l_d12" if depth == 12 else "l_d6"
    tokenpose = {"image": "t", "stem": small, "hrnet_w32": "b", "hrnet_w48": large}[backbone]
    sdpose = "t" if backbone == "stem" and depth == 6 else "b" if backbone == "hrnet_w32" else small
    return {
        "tokenpose": f"tokenpose_{tokenpose}",
        "sdpose": f"sdpose_{sdpose}",
        "ppt": "ppt_s" if backbone == "stem" else "ppt_b",
    }


def _count(tensors: Mapping[str, Tensor], pattern: str) -> int:
    """How many different first groups of a pattern the names have."""
    return len({match[1] for key in tensors if (match := re.match(pattern, key))})


def _hourglass(tensors: Mapping[str, Tensor]) -> RecognisedNetwork:
    stacks = _count(tensors, r"backbone\.hourglass_modules\.(\d+)\.")
    name = f"hourglass_{stacks}" if stacks in (1, 2, 4, 8) else "hourglass_8"
    keypoints = tensors["head.multi_final_layers.0.weight"].shape[0]
    return RecognisedNetwork("Hourglass", {name: {"num_stacks": stacks}}, keypoints, (256, 256))


def _mspn(tensors: Mapping[str, Tensor]) -> RecognisedNetwork:
    stages = _count(tensors, r"backbone\.multi_stage_mspn\.(\d+)\.")
    keypoints = tensors["head.predict_layers.0.conv_layers.1.conv.weight"].shape[0]
    options = {
        "num_stages": stages,
        "unit_channels": tensors["head.predict_layers.0.conv_layers.0.conv.weight"].shape[0],
    }
    return RecognisedNetwork("MSPN", {"mspn50_1" if stages == 1 else "mspn50_4": options}, keypoints)


def _transpose(tensors: Mapping[str, Tensor]) -> RecognisedNetwork:
    depth = _count(tensors, r"global_encoder\.layers\.(\d+)\.")
    width, channels = tensors["reduce.weight"].shape[:2]
    hrnet = "stage3.0.branches.0.0.conv1.weight" in tensors
    options: dict[str, Any] = {
        "backbone": f"hrnet_w{channels}" if hrnet else "resnet50",
        "embed_dim": width,
        "depth": depth,
        "num_heads": 1 if hrnet else 8,  # no shape tells the heads of the attention: these are the paper's
        "mlp_width": tensors["global_encoder.layers.0.linear1.weight"].shape[0],
    }
    name = ("transpose_h_s" if channels == 32 else f"transpose_h_a{depth}") if hrnet else f"transpose_r_a{depth}"
    known = {"transpose_h_s", "transpose_h_a4", "transpose_h_a6", "transpose_r_a3", "transpose_r_a4"}
    name = name if name in known else "transpose_h_a6" if hrnet else "transpose_r_a4"
    size = _size_of_area(tensors["pos_embedding"].shape[0] * (16 if hrnet else 64))
    return RecognisedNetwork("TransPose", {name: options}, tensors["final_layer.weight"].shape[0], size)


_FAMILIES: dict[str, Callable[[Mapping[str, Tensor]], RecognisedNetwork | None]] = {
    r"head\.gau\.uv\.weight": _rtmpose,
    r".*keypoint_token": _token_network,
    r"backbone\.patch_embed\.projection\.weight": _vitpose,
    r"backbone\.hourglass_modules\.0\.up1\.0\.conv1\.weight": _hourglass,
    r"backbone\.multi_stage_mspn\.0\.upsample\.up1\.in_skip\.conv\.weight": _mspn,
    r"global_encoder\.layers\.0\.self_attn\.in_proj_weight": _transpose,
    rf"{_HEAD.pattern}final_layer\.weight": _convolutional,
    r"(?:keypoint_)?head\.fc\.weight": _deeppose,
}
"""Who tells the networks of a family apart, by the name of a weight that these alone have; the first one counts."""
