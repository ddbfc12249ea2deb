"""Leeds Sports Pose (Johnson and Everingham, BMVC 2010) and its extension (CVPR 2011)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from leanpose.data.annotations import AREA_OF_BOX, PoseAnnotation, PoseDataset, padded_boxes
from leanpose.data.ground_truth import labelled_dataset
from leanpose.data.image_folder import ImageFolder
from leanpose.data.keypoints import map_keypoints, match_keypoints, zero_unlabelled
from leanpose.data.matlab import load_matlab, matlab_names
from leanpose.data.readers import DatasetConfig, in_split
from leanpose.data.records import record_errors
from leanpose.data.sniffing import FileContent
from leanpose.data.summary import start_summary
from leanpose.errors import LeanposeError
from leanpose.skeleton import LSP14, Skeleton


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
        points[~np.isfinite(flag), 2] = 0
        return zero_unlabelled(points)


def load_lsp(path: Path) -> LspFile:
    """Read a joint file: 3 × 14 × N numbers in LSP, 14 × 3 × N in the extended set.

    Raises:
        LeanposeError: the file is missing, truncated, or holds no such joints.
    """
    content = load_matlab(path)
    joints = content.get("joints")
    if not isinstance(joints, np.ndarray) or joints.ndim != 3 or joints.shape[:2] not in ((3, 14), (14, 3)):
        raise LeanposeError(f"{path} is not an LSP joint file: it has no `joints` of 3 × 14 × N or 14 × 3 × N numbers.")
    extended = joints.shape[0] == 14
    points = np.array(joints.transpose(2, 0, 1) if extended else joints.transpose(2, 1, 0), np.float64)
    numbers = content.get("image_number")
    numbers = np.reshape(np.arange(len(points)) + 1 if numbers is None else numbers, -1)
    numbers = np.arange(1, len(points) + 1) if numbers.size != len(points) else numbers
    with record_errors(f"{path}: image_number"):
        names = [f"im{int(number):0{5 if extended else 4}d}.jpg" for number in numbers]
    return LspFile(points, names, extended)


def is_lsp(file: FileContent) -> bool:
    """Whether a file is a MATLAB file of joints."""
    return file.path.suffix == ".mat" and "joints" in matlab_names(file.path)


def read_lsp(config: DatasetConfig, skeleton: Skeleton, root: Path, *, training: bool) -> PoseDataset:
    """Read an LSP set; see `leanpose.data.readers.read_people`. One person an image, in the image's own numbering."""
    path, image_path = config.annotation_path(root), config.image_path(root)
    file = load_lsp(path)
    folder = ImageFolder(image_path, config.title)
    labelled = config.labelled_skeleton(root) or LSP14
    indices = match_keypoints(config.title, labelled, skeleton)
    joints = file.labelled_points()
    people, images = [], []
    for position, (points, name, box) in enumerate(zip(joints, file.names, padded_boxes(joints), strict=True)):
        if in_split(position, config.split):
            number = int(name[2:-4])
            width, height = (box[2:] - box[:2]).tolist()
            keypoints, area = map_keypoints(points, indices), AREA_OF_BOX * width * height
            people.append(PoseAnnotation(folder(name), box, keypoints, number, number, area))
            images.append({"id": number, "file_name": name})
    summary = start_summary(config.title, skeleton, labelled, config.split)
    return labelled_dataset(summary, people, images, skeleton)
