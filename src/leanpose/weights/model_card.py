"""The `README.md` of published weights: the card of the file as text, with the hub's metadata on top."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from leanpose.files import dump_yaml
from leanpose.models.cost import model_cost
from leanpose.skeleton import Skeleton

# Names of licences that the hub knows (https://huggingface.co/docs/hub/repositories-licenses); any other terms are
# `other`.
_LICENCES = (
    "apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0",
    "cc-by-nc-sa-4.0", "cc-by-nd-4.0", "cc-by-nc-nd-4.0", "mpl-2.0", "lgpl-3.0", "gpl-3.0", "agpl-3.0", "unlicense",
)  # fmt: skip
_DATASET = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)
"""The hub's pattern for data set names; it rejects files with other text there."""
_MAX_KEYPOINTS = 30  # named one by one


def model_card(card: Mapping[str, Any], address: str | None = None) -> str:
    """The text of a `README.md`.

    Args:
        card: of the file (`leanpose.weights.describe`), of a pose model.
        address: where the weights will be, such as `hf://USER/NAME`; None: in a folder.
    """
    skeleton = Skeleton.from_dict(card["skeleton"])
    cost = model_cost(card["model"], skeleton=skeleton, **card["config"])
    title = card["model"] if address is None else address.removeprefix("hf://")
    height, width = card["input_size"]
    facts = {
        "model": f"`{card['model']}`",
        "finds": _keypoints(skeleton),
        "input": f"crops of one person, {height}×{width} (height × width) RGB pixels",
        "output": f"`{card['codec']['name']}`, decoded by leanpose",
        "parameters": f"{card['parameters'] / 1e6:.2f} M",
        "GMACs a crop": f"{cost.macs / 1e9:.2f}, with attention {(cost.macs + cost.attention_macs) / 1e9:.2f}",
        "written by": f"leanpose {card['version']}",
    }
    lines = [
        "---", dump_yaml(_metadata(card, skeleton), allow_unicode=True).rstrip(), "---", "",
        f"# {_plain(title)}", "",
        "A top-down human-pose estimator of [leanpose](https://github.com/leanpose/leanpose).", "",
        "| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in facts.items()), "",
        "## Use", "", "```python", "import leanpose", f"estimator = leanpose.PoseEstimator({address or 'model.safetensors'!r})",
        'poses = estimator("photo.jpg")', "```", "",
        "## Results", "", *_results(card["metrics"]), "",
        "## Training data", "", *_listed(card["training_data"], "None: the weights are randomly initialised."), "",
        "## Terms", "", f"The weights: {_plain(card['licence'])}",
    ]  # fmt: skip
    if card.get("notes"):
        lines += ["", "## Notes", "", f"- {_plain(card['notes'])}"]
    return "\n".join(lines) + "\n"


def _metadata(card: Mapping[str, Any], skeleton: Skeleton) -> dict[str, Any]:
    """The hub's metadata at the top of a model card."""
    licence = "-".join(card["licence"].lower().split())
    terms = {"license": licence} if licence in _LICENCES else {"license": "other", "license_name": "terms-in-this-card"}
    datasets = [name for name in card["training_data"] if _DATASET.fullmatch(name)]
    return {
        "library_name": "leanpose",
        "pipeline_tag": "keypoint-detection",
        "tags": ["leanpose", "pose-estimation", card["model"], skeleton.name],
        **terms,
        **({"datasets": datasets} if datasets else {}),
    }


def _keypoints(skeleton: Skeleton) -> str:
    """The keypoints of a model, in one line."""
    named = ", ".join(_plain(name) for name in skeleton.keypoints)
    if len(skeleton) > _MAX_KEYPOINTS:
        named = ", ".join(f"{_plain(part)} {len(points)}" for part, points in skeleton.parts.items())
    return f"{len(skeleton)} keypoints" + (f": {named}" if named else "")


def _results(metrics: Mapping[str, Any]) -> list[str]:
    if not metrics:
        return ["None stated."]
    rows = (f"| {_plain(name)} | {_plain(str(value))} |" for name, value in metrics.items())
    return ["| measure | value |", "| --- | --- |", *rows]


def _listed(entries: Sequence[str], nothing: str) -> list[str]:
    return [f"- {_plain(entry)}" for entry in entries] or [nothing]


def _plain(text: str) -> str:
    """Text of one line in which nothing is markup."""
    return re.sub(r"([\\`*<\[|])", r"\\\1", " ".join(text.split()))
