"""Leeds Sports Pose (Johnson and Everingham, BMVC 2010) and its extension (CVPR 2011): joints in MATLAB files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from leanpose.data.coco import coco_category, map_keypoints
from leanpose.data.matlab import load_matlab
from leanpose.data.sample import PoseAnnotation, PoseDataset
from leanpose.errors import LeanposeError
from leanpose.geometry import boxes_from_keypoints, xyxy_to_xywh
from leanpose.skeleton import LSP14, Skeleton

if TYPE_CHECKING:
    from leanpose.data.sources import DatasetConfig

BOX_PADDING = 1.2
"""LSP has no boxes: the keypoints' extent times this stands in for one."""

AREA_OF_BOX = 0.53
"""LSP has no masks: a person covers about this much of its box, the constant that CrowdPose's evaluation uses too."""


@dataclass(frozen=True)
class LspFile:
    """The joints of an LSP file.

    Attributes:
        points: x, y and the file's own flag.
        names: of the images.
        extended: whether it is the extended set's file: flag 1 labelled, 0 not, where LSP has 0 visible, 1 occluded.
    """

    points: Float[np.ndarray, "N 14 3"]
    names: list[str]
    extended: bool

    def labelled_points(self) -> Float[np.ndarray, "N 14 3"]:
        """The joints with COCO's visibility."""
        points, flag = self.points.copy(), self.points[..., 2]
        points[..., 2] = np.where(flag > 0, 2, 0) if self.extended else np.where(flag > 0, 1, 2)
        points[~np.isfinite(self.points).all(axis=2)] = 0.0
        points[points[..., 2] == 0] = 0.0
        return points


def load_lsp(path: Path) -> LspFile:
    """Read a joint file: 3 × 14 × N numbers in LSP, 14 × 3 × N in the extended set.

    Raises:
        LeanposeError: the file is missing, cut off, or holds no such joints.
    """
    content = load_matlab(path)
    joints = content.get("joints")
    if joints is None or joints.ndim != 3 or joints.shape[:2] not in ((3, 14), (14, 3)):
        raise LeanposeError(f"{path} is no LSP joint file: it has no `joints` of 3 × 14 × N or 14 × 3 × N numbers.")
    extended = joints.shape[0] == 14
    points = np.array(joints.transpose(2, 0, 1) if extended else joints.transpose(2, 1, 0), np.float64)
    numbers = content.get("image_number")
    numbers = np.arange(1, len(points) + 1) if numbers is None or numbers.size != len(points) else numbers.reshape(-1)
    return LspFile(points, [f"im{int(number):0{5 if extended else 4}d}.jpg" for number in numbers], extended)


def read_lsp(source: DatasetConfig, skeleton: Skeleton, root: Path) -> PoseDataset:
    """Read an LSP set; see `leanpose.data.sources.read_people`. One person an image, in the image's own numbering."""
    from leanpose.data.sources import ImageFolder, in_split, match_keypoints, source_skeleton

    assert source.annotations is not None
    assert source.images is not None
    file = load_lsp(root / source.annotations)
    joints = file.labelled_points()
    folder = ImageFolder(root / source.images, source.title)
    labelled = source_skeleton(source, root, LSP14)
    indices = match_keypoints(source.title, labelled, skeleton)
    boxes = lsp_boxes(joints)

    people, images, annotations = [], [], []
    for position, (points, name, box) in enumerate(zip(joints, file.names, boxes, strict=True)):
        if not in_split(position, source.split):
            continue
        number = int(name[2:-4])
        keypoints = map_keypoints(points, indices)
        count = int((keypoints[:, 2] > 0).sum())
        x, y, width, height = xyxy_to_xywh(box).tolist()
        area = AREA_OF_BOX * width * height
        images.append({"id": number, "file_name": name})
        annotations.append(
            {
                "id": number,
                "image_id": number,
                "category_id": 1,
                "iscrowd": 0,
                "bbox": [x, y, width, height],
                "area": area,
                "num_keypoints": count,
                "keypoints": keypoints.astype(np.float64).round(4).reshape(-1).tolist(),
            }
        )
        if count and area > 0:
            people.append(PoseAnnotation(folder(name), box, keypoints, number, number, area))
    truth = {"images": images, "annotations": annotations, "categories": [coco_category(skeleton)]}
    return PoseDataset(source.title, people, truth)


def lsp_boxes(joints: Float[np.ndarray, "N 14 3"]) -> Float[np.ndarray, "N 4"]:
    """A box (xyxy) around each person's labelled joints, enlarged about its centre by `BOX_PADDING`."""
    extent = boxes_from_keypoints(joints)
    centers, halves = (extent[:, :2] + extent[:, 2:]) / 2, (extent[:, 2:] - extent[:, :2]) / 2 * BOX_PADDING
    return np.concatenate([centers - halves, centers + halves], axis=1)
