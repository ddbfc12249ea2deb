"""What network a checkpoint is of, told from the names and shapes of its weights alone.

Each family leaves its own marks: the head's names say which paper's code wrote the file, the shapes say width, depth,
number of keypoints and, where a layer is tied to the picture's size, that too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from leanpose.errors import LeanposeError
from leanpose.weights.recognition.recognised import Recognised, size_of_area
from leanpose.weights.recognition.tokens import recognise_tokens

SUPPORTED = (
    "RTMPose and DWPose, SimCC, SimpleBaseline, HRNet, DeepPose, RLE and ViTPose of mmpose, TokenPose, PPT, SDPose, "
    "DistilPose and SDPose-Reg, and the backbones ResNet-50/101/152, HRNet-W32/W48 and CSPNeXt"
)


def recognise(tensors: Mapping[str, Tensor]) -> Recognised | None:
    """What the weights are of; None: no network with a head that is known.

    Raises:
        LeanposeError: the marks are those of a known family, but the shapes fit none of its networks.
    """
    found = None
    if "head.gau.uv.weight" in tensors:
        found = _rtmpose(tensors)
    elif any(key.endswith("keypoint_token") for key in tensors):
        found = recognise_tokens(tensors)
    elif "backbone.patch_embed.projection.weight" in tensors and "head.final_layer.weight" in tensors:
        found = _vitpose(tensors)
    elif _head(tensors, "final_layer.weight") is not None:
        found = _convolutional(tensors)
    elif "head.fc.weight" in tensors or "keypoint_head.fc.weight" in tensors:
        found = _deeppose(tensors)
    return found


def unwrap_distiller(tensors: Mapping[str, Tensor], stage: int | None = None) -> tuple[dict[str, Tensor], str]:
    """The trained network of a DWPose distiller's file, and a sentence on what was taken; other files come back as they are.

    In stage 1 the student is the network. In stage 2 only the student's head is trained, on the features of the teacher's
    backbone: the network is the two together. The two stages have the same names; in the published recipes the teacher
    of stage 1 is a larger network, that of stage 2 the same one.

    Args:
        stage: 1 or 2, if it is known better.

    Raises:
        LeanposeError: the file has a teacher but no student.
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
    if not any(key.startswith("backbone.") for key in teacher):
        raise LeanposeError("The checkpoint has no teacher, whose backbone is a part of the network after stage 2.")
    merged = {key: value for key, value in teacher.items() if key.startswith("backbone.")}
    merged |= {key: value for key, value in student.items() if not key.startswith("backbone.")}
    return merged, "the teacher's backbone and the student's head were taken, as after stage 2 of DWPose"


def backbone_of(tensors: Mapping[str, Tensor]) -> tuple[str, dict[str, Tensor]] | None:
    """The feature extractor of a checkpoint: timm's name for it, and its weights by timm's names; None: none that is known."""
    inner = {key[9:]: value for key, value in tensors.items() if key.startswith("backbone.")} or dict(tensors)
    inner = {key: value for key, value in inner.items() if not _NOT_BACKBONE.match(key)}
    if "stem.0.conv.weight" in inner:
        variant = _CSPNEXT.get(inner["stem.0.conv.weight"].shape[0])
        named = {_CSPNEXT_STAGE.sub(lambda stage: f"stages.{int(stage[1]) - 1}.", k): v for k, v in inner.items()}
        return None if variant is None else (f"cspnext_{variant}", named)
    if "stage4.0.branches.0.0.conv1.weight" in inner:
        variant = _hrnet_variant(inner)
        return None if variant is None else (variant, inner)
    depth = _resnet_depth(inner)
    return None if depth is None else (f"resnet{depth}", inner)


def describe_unknown(tensors: Mapping[str, Tensor]) -> str:
    """What a checkpoint that is not known looks like, in a few words."""
    for mark, what in _LOOKS_LIKE.items():
        if any(re.search(mark, key) for key in tensors):
            return what
    firsts = list(dict.fromkeys(key.split(".")[0] for key in tensors))
    more = " and others" if len(firsts) > 4 else ""
    return f"{len(tensors)} tensors whose names begin with {', '.join(repr(f) for f in firsts[:4])}{more}"


_LOOKS_LIKE = {
    r"^bbox_head\.|^rpn_head\.|^roi_head\.": "a detector of boxes",
    r"multi_final_layers|hourglass_modules": "an hourglass network",
    r"predict_layers": "a multi-stage network (MSPN or RSN)",
    r"relative_position_bias_table": "a Swin transformer",
    r"^backbone\.patch_embed\.proj\.|^backbone\.blocks\.": "a ViTPose of its first code, whose layout is another than mmpose 1.x's",
    r"^backbone\.patch_embed\.": "a vision transformer without a decoder of ViTPose's",
    r"^(backbone\.)?layer1\.0\.conv2\.weight$": "a ResNet of another kind than ResNet-50, -101 and -152",
    r"^head\.(mlp|cls_x|gau)\.": "a SimCC head like RTMPose's, with parts that are not RTMPose's",
    r"^(model\.)?model\.\d+\.": "a YOLO network",
    r"^generator\.|^discriminator\.": "a generative network",
}
_NOT_BACKBONE = re.compile(
    r"(fc|head|classifier|final_layer|incre_modules|downsamp_modules|keypoint_head|deconv_layers)\."
)
_CSPNEXT = {12: "tiny", 16: "s", 24: "m", 32: "l", 40: "x"}  # by the stem's first width
_CSPNEXT_STAGE = re.compile(r"^stage([1-4])\.")
_RTMPOSE = {"tiny": "t", "s": "s", "m": "m", "l": "l", "x": "x"}
_RESNET = {6: 50, 23: 101, 36: 152}  # by the blocks of the third stage
_VIT = {
    384: ("vitpose_s", 12, 12),
    768: ("vitpose_b", 12, 12),
    1024: ("vitpose_b", 24, 16),
    1280: ("vitpose_b", 32, 16),
}
_LIKELY_COUNTS = (17, 14, 16, 133, 26, 19)  # of keypoints, by frequency


def _head(tensors: Mapping[str, Tensor], name: str) -> Tensor | None:
    """A weight of the head, under any of the prefixes that codes use."""
    for prefix in ("head.", "keypoint_head.", "keypoint_head.deconv_head.", "head.deconv_head.", ""):
        if prefix + name in tensors:
            return tensors[prefix + name]
    return None


def _rtmpose(tensors: Mapping[str, Tensor]) -> Recognised:
    widths = [tensors[k].shape for k in ("head.final_layer.weight", "head.gau.gamma", "head.gau.o.weight")
              if k in tensors]  # fmt: skip
    stem, mlp = tensors.get("backbone.stem.0.conv.weight"), tensors.get("head.mlp.1.weight")
    x, y = tensors.get("head.cls_x.weight"), tensors.get("head.cls_y.weight")
    if len(widths) < 3 or stem is None or mlp is None or x is None or y is None or stem.shape[0] not in _CSPNEXT:
        raise LeanposeError(f"The checkpoint looks like {describe_unknown(tensors)}; supported are {SUPPORTED}.")
    (keypoints, _, kernel, _), (_, gau_qk_dim), (width, inner) = widths
    # Bins are pixels times the split, and features are at stride 32: their number gives the split.
    split = math.sqrt(x.shape[0] * y.shape[0] / (mlp.shape[1] * 32 * 32))
    size = (round(y.shape[0] / split), round(x.shape[0] / split))
    variant = _CSPNEXT[stem.shape[0]]
    options = {
        "backbone": f"cspnext_{variant}",
        "kernel": kernel,
        "width": width,
        "gau_qk_dim": gau_qk_dim,
        "expansion": inner // width,
        "split": round(split, 4),
    }
    nets = ("rtmpose", "dwpose") if keypoints == 133 else ("rtmpose",)
    names = [f"{net}_{_RTMPOSE[variant]}" for net in nets]
    return Recognised("RTMPose", dict.fromkeys(names, options), keypoints, size)


def _vitpose(tensors: Mapping[str, Tensor]) -> Recognised:
    width = tensors["backbone.patch_embed.projection.weight"].shape[0]
    final = _head(tensors, "final_layer.weight")
    layers = {key.split(".")[2] for key in tensors if key.startswith("backbone.layers.")}
    if width not in _VIT or final is None or len(layers) != _VIT[width][1] or "backbone.pos_embed" not in tensors:
        raise LeanposeError(
            f"The checkpoint looks like a ViTPose with {len(layers)} layers of width {width}, of which leanpose knows "
            "12 of 384 or 768, 24 of 1024 and 32 of 1280."
        )
    name, depth, heads = _VIT[width]
    size = size_of_area(tensors["backbone.pos_embed"].shape[1] * 16 * 16)
    options: dict[str, Any] = {"width": width, "depth": depth, "heads": heads}
    if "head.deconv_layers.0.weight" not in tensors:
        options["decoder"] = "simple"
        name = "vitpose_s_simple" if name == "vitpose_s" else name
    return Recognised("ViTPose", {name: options}, final.shape[0], size)


def _hrnet_variant(tensors: Mapping[str, Tensor]) -> str | None:
    for prefix in ("backbone.", ""):
        branch = tensors.get(f"{prefix}stage4.0.branches.0.0.conv1.weight")
        if branch is not None and branch.shape[0] in (32, 48):
            return f"hrnet_w{branch.shape[0]}"
    return None


def _resnet_depth(tensors: Mapping[str, Tensor]) -> int | None:
    """Of a ResNet of bottlenecks without other additions; None: it is none."""
    inner = {key.removeprefix("backbone.") for key in tensors}
    blocks = {key.split(".")[1] for key in inner if key.startswith("layer3.")}
    plain = {"conv1.weight", "layer1.0.conv3.weight"} <= inner and not any(
        ".se." in key or "attn" in key for key in inner
    )
    return _RESNET.get(len(blocks)) if plain else None


def _convolutional(tensors: Mapping[str, Tensor]) -> Recognised | None:
    """SimpleBaseline, HRNet and SimCC."""
    final = _head(tensors, "final_layer.weight")
    assert final is not None
    variant, depth = _hrnet_variant(tensors), _resnet_depth(tensors)
    if final.shape[2:] != (1, 1):
        return None
    if variant is not None:
        return Recognised("HRNet", {variant: {}}, final.shape[0])
    if depth is None:
        return None
    layers = sorted(
        (int(match[1]), tuple(value.shape))
        for key, value in tensors.items()
        if (match := re.search(r"deconv_layers\.(\d+)\.weight$", key)) and value.ndim == 4
    )
    widths = tuple(shape[1] for _, shape in layers)
    if not layers or any(shape[2:] != (4, 4) for _, shape in layers):
        return None
    options: dict[str, Any] = {} if widths == (256, 256, 256) else {"deconvolutions": widths}
    x, y = _head(tensors, "mlp_head_x.weight"), _head(tensors, "mlp_head_y.weight")
    if x is None or y is None:
        return Recognised("SimpleBaseline", {f"simplebaseline_r{depth}": options}, final.shape[0])
    stride = 32 / 2 ** len(widths)
    split = math.sqrt(x.shape[0] * y.shape[0] / (x.shape[1] * stride * stride))
    size = (round(y.shape[0] / split), round(x.shape[0] / split))
    options |= {"split": round(split, 4), "backbone": f"resnet{depth}"}
    return Recognised("SimCC", {"simcc_r50": options}, final.shape[0], size)


def _deeppose(tensors: Mapping[str, Tensor]) -> Recognised | None:
    """DeepPose and RLE."""
    depth, values = _resnet_depth(tensors), _head(tensors, "fc.weight")
    assert values is not None
    count = values.shape[0]
    if depth is None or count % 2 or count == 1000:
        return None
    flow = any("flow_model" in key or "flow" in key.split(".") for key in tensors)
    if flow or (count // 2 not in _LIKELY_COUNTS and count % 4 == 0 and count // 4 in _LIKELY_COUNTS):
        return Recognised("RLE", {"rle_r50": {"backbone": f"resnet{depth}"}}, count // 4)
    return Recognised("DeepPose", {f"deeppose_r{depth}": {}}, count // 2)
