"""Answers with poses: formats, drawn images, and the numbers of people left out."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import UInt8
from pydantic import Field

from leanpose.drawing.files import encode_image
from leanpose.errors import LeanposeError, did_you_mean
from leanpose.inference.results import PoseResult
from leanpose.schema import Section, validate
from leanpose.serving.settings import RequestError
from leanpose.skeleton import Skeleton

Format = Literal["json", "coco", "openpose", "supervision"]
FORMATS: tuple[Format, ...] = get_args(Format)


class PoseOptions(Section):
    """Query options of a request for poses."""

    format: Format = Field("json", description="How the people of an image are written.")
    draw: bool = Field(False, description="Give each image with the skeletons on it too, as a JPEG in base64.")
    person_threshold: float | None = Field(
        None, ge=0, le=1, description="Leave out detected people with a lower score. By default the server's."
    )
    keypoint_threshold: float = Field(
        0.3,
        ge=0,
        le=1,
        description="Keypoints below it are drawn faintly or not at all, and are missing in OpenPose's.",
    )
    max_people: int | None = Field(
        None, ge=1, description="Give only so many people of an image, those with the highest scores."
    )

    @classmethod
    def parse(cls, query: list[tuple[str, str]], skeleton: Skeleton) -> PoseOptions:
        """The options of a query.

        Args:
            query: names and values as they came.
            skeleton: the model's.

        Raises:
            RequestError: a name or a value is unknown, with the nearest valid one; or the format cannot hold the
                skeleton.
        """
        values = dict(query)
        if len(values) < len(query):
            names = [name for name, _ in query]
            raise RequestError(422, f"The query gives '{next(n for n in names if names.count(n) > 1)}' more than once.")
        form = values.get("format", "json")
        if form not in FORMATS:
            raise RequestError(422, f"Unknown format '{form[:100]}'; {did_you_mean(form[:100], FORMATS)}")
        try:
            options = validate(cls, values, "The query")
            if form == "openpose":
                PoseResult.empty(skeleton).to_openpose()
        except LeanposeError as error:
            raise RequestError(422, str(error)) from error
        return options


@dataclass(frozen=True)
class SentImage:
    """An image of a request.

    Attributes:
        index: its place in the request, from 0.
        name: the client's for it, or None; nothing is opened by it.
        content: the file's bytes.
    """

    index: int
    name: str | None
    content: bytes

    def __str__(self) -> str:
        return str(self.index) if self.name is None else f"{self.index} ('{self.name}')"


def image_answer(
    image: SentImage,
    options: PoseOptions,
    poses: PoseResult,
    pixels: UInt8[np.ndarray, "H W 3"],
    notices: list[str],
    person_threshold: float,
) -> dict[str, Any]:
    """The part of an answer that is about one image.

    Args:
        image: as it was sent.
        options: of the request.
        poses: of all people, whatever their scores.
        pixels: of the image.
        notices: sentences on guesses about the image and on what was left out of it.
        person_threshold: where the request has none.
    """
    threshold = person_threshold if options.person_threshold is None else options.person_threshold
    certain = poses[np.flatnonzero(poses.person_scores >= threshold)]
    shown = certain
    if options.max_people is not None and len(certain) > options.max_people:
        best = np.argsort(-certain.person_scores, kind="stable")[: options.max_people]
        shown = certain[np.sort(best)]
    shown = replace(shown, image=None)
    answer = {
        "index": image.index,
        "name": image.name,
        "height": pixels.shape[0],
        "width": pixels.shape[1],
        "people": len(shown),
        "left_out": {
            "below_person_threshold": len(poses) - len(certain),
            "above_max_people": len(certain) - len(shown),
        },
        "notices": notices,
        "poses": format_poses(shown, image, options),
    }
    if options.draw:
        content = encode_image(shown.draw(pixels, keypoint_threshold=options.keypoint_threshold), ".jpg")
        if content is None:
            notices.append("The image is too large to be drawn as a JPEG.")
        answer["drawn"] = None if content is None else base64.b64encode(content).decode()
    return answer


def format_poses(poses: PoseResult, image: SentImage, options: PoseOptions) -> Any:
    """The people of an image in the format that the options name."""
    if options.format == "coco":
        return poses.to_coco(image.index)
    if options.format == "openpose":
        return poses.to_openpose(keypoint_threshold=options.keypoint_threshold)
    if options.format == "supervision":
        return supervision_arguments(poses)
    return poses.to_dict() | {"image": image.name}


def supervision_arguments(poses: PoseResult) -> Mapping[str, Any]:
    """The arguments of `supervision.KeyPoints` as lists, with every bit of the numbers; supervision itself is not
    needed."""
    return {
        "xy": poses.keypoints.astype(np.float32).tolist(),
        "class_id": [0] * len(poses),
        "keypoint_confidence": poses.keypoint_scores.astype(np.float32).tolist(),
        "detection_confidence": poses.box_scores.astype(np.float32).tolist(),
        "data": {"class_name": ["person"] * len(poses)},
    }
