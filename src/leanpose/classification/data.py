"""Images sorted into a folder for each class, as ImageNet and most classification sets come:
`root/train/CLASS/image.jpg`.

As with crops of people, an item is drawn by (seed, epoch, index) alone, stays uint8, and is normalized on the device.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from leanpose.choices import Split
from leanpose.classification.recipe import ClassificationSection
from leanpose.data.batch import Batch
from leanpose.data.dataset import ImageDataset
from leanpose.data.images import read_bytes, read_image
from leanpose.data.readers import in_split
from leanpose.errors import LeanposeError, did_you_mean

if TYPE_CHECKING:
    from PIL.Image import Image

CROP_PCT = 0.875
"""Share of the shorter side that evaluation crops from the middle (DeiT: resized to 256, cropped to 224)."""


@dataclass(frozen=True)
class ClassFolder:
    """The images of a folder.

    Attributes:
        path: the folder of the classes' folders.
        classes: names, in the order of the labels.
        files: of all images.
        labels: of each image, the index of its class.
    """

    path: Path
    classes: tuple[str, ...]
    files: tuple[Path, ...]
    labels: Int[np.ndarray, " N"]

    def __len__(self) -> int:
        return len(self.files)


def read_class_folder(path: Path, classes: Sequence[str] | None = None, split: Split = "all") -> ClassFolder:
    """List the images of a folder that holds a folder for each class.

    Args:
        path: whose folders' names are those of the classes; hidden ones do not count.
        classes: of a model: the labels follow their order, and some may be missing in the folder. None: the
            folder decides, in alphabetical order, and there must be two or more.
        split: `val` is every tenth image of each class, `train` the others.

    Raises:
        LeanposeError: there is no such folder, it holds no classes, one alone, an unknown one, or one without images.
    """
    from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset  # heavy

    if not path.is_dir():
        raise LeanposeError(f"The folder of classes {path} does not exist.")
    present = sorted(entry.name for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if len(present) < (2 if classes is None else 1):
        raise LeanposeError(
            f"{path} contains {len(present)} class folders, but at least 2 are needed; images are expected as "
            f"{path / 'CLASS' / 'image.jpg'}."
        )
    known = tuple(present if classes is None else classes)
    for name in present:
        if name not in known:
            raise LeanposeError(
                f"{path} contains the class '{name}', which is not among the model's {len(known)}; "
                f"{did_you_mean(name, known)}"
            )
    samples: list[tuple[str, int]] = []
    for name in present:
        try:
            images = make_dataset(path, {name: known.index(name)}, IMG_EXTENSIONS)
        except FileNotFoundError as error:
            raise LeanposeError(
                f"The class '{name}' in {path} has no image ({', '.join(IMG_EXTENSIONS)}); fill its folder or delete it."
            ) from error
        samples += [sample for position, sample in enumerate(images) if in_split(position, split)]
    if not samples:
        raise LeanposeError(f"No class in {path} has the ten images of which one would be for split=val.")
    files, labels = zip(*samples, strict=True)
    return ClassFolder(path, known, tuple(map(Path, files)), np.array(labels, np.int64))


def augmentation_of(section: ClassificationSection, size: tuple[int, int]) -> Callable[[Image], Image]:
    """DeiT's augmentation to images of `size` (height, width), but that an erased part becomes grey, not noise.

    It draws from the global generators.

    Raises:
        LeanposeError: timm does not know the policy.
    """
    from timm.data.auto_augment import rand_augment_transform
    from torchvision.transforms import InterpolationMode, v2

    smooth = InterpolationMode.BICUBIC
    steps: list[Callable[[Image], Image]] = [
        v2.RandomResizedCrop(size, section.area, section.aspect, interpolation=smooth),
        v2.RandomHorizontalFlip(section.flip_probability),
    ]
    if section.policy:
        options = {"translate_const": int(0.45 * min(size)), "img_mean": (124, 116, 104)}  # of ImageNet
        try:
            steps.append(rand_augment_transform(section.policy, options))
        except (AssertionError, KeyError, ValueError) as error:
            raise LeanposeError(f"timm does not know the policy of RandAugment '{section.policy}'.") from error
    if section.erasing_probability:
        steps += [v2.PILToTensor(), v2.RandomErasing(section.erasing_probability, value=118.0), v2.ToPILImage()]
    return v2.Compose(steps)


ClassSample = tuple[UInt8[np.ndarray, "h w 3"], int, int]
"""An image (RGB) as a model sees it, the index of its class, and its own in the data set."""


@dataclass(frozen=True)
class ClassBatch(Batch):
    """The images of a batch that could be read.

    Attributes:
        images: RGB.
        labels: indices of classes.
    """

    images: UInt8[Tensor, "B h w 3"]
    labels: Int[Tensor, " B"]

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        return self.images, self.labels


class ClassDataset(ImageDataset[ClassSample]):
    """A map-style data set of images with classes.

    Args:
        folder: the images.
        input_size: height and width that they are brought to.
        section: how they vary; None for the middle of the image, as in evaluation.
        seed, replace_broken: see `ImageDataset`.
    """

    unit = "images"

    def __init__(
        self,
        folder: ClassFolder,
        input_size: tuple[int, int],
        *,
        section: ClassificationSection | None = None,
        seed: int = 0,
        replace_broken: bool = False,
    ) -> None:
        super().__init__(seed, replace_broken=replace_broken)
        self.folder, self.input_size = folder, input_size
        self._augment = None if section is None else augmentation_of(section, input_size)

    def __len__(self) -> int:
        return len(self.folder)

    def image_name(self, index: int) -> str:
        return str(self.folder.files[index])

    def read(self, index: int) -> ClassSample:
        """An image with its class.

        Raises:
            BrokenImageError: it cannot be read.
        """
        from PIL import Image, ImageOps

        file, label = self.folder.files[index], int(self.folder.labels[index])
        image = Image.fromarray(read_image(read_bytes(file), name=str(file)))
        if self._augment is None:
            size, border = (self.input_size[1], self.input_size[0]), (1 - CROP_PCT) / 2
            return np.asarray(ImageOps.fit(image, size, Image.Resampling.BICUBIC, border)), label, index
        with _seeded(self.seed, self.epoch, index):
            return np.asarray(self._augment(image)), label, index

    def collate(self, items: Sequence[tuple[ClassSample | None, dict[str, str]]]) -> ClassBatch:
        """A loader's `collate_fn`: stack the images that could be read."""
        samples = [sample for sample, _ in items if sample is not None]
        images = [image for image, _, _ in samples]
        return ClassBatch(
            torch.tensor([index for _, _, index in samples], dtype=torch.int64),
            {name: reason for _, broken in items for name, reason in broken.items()},
            torch.from_numpy(np.stack(images) if images else np.zeros((0, *self.input_size, 3), np.uint8)),
            torch.tensor([label for _, label, _ in samples], dtype=torch.int64),
        )


@contextmanager
def _seeded(*seed: int) -> Iterator[None]:
    """Let the global generators, which the libraries' augmentations draw from, depend on `seed` alone; then put them
    back."""
    number = int(np.random.SeedSequence(seed).generate_state(1)[0])
    before, numpy_before = random.getstate(), np.random.get_state()  # noqa: NPY002 (timm draws from it)
    try:
        with torch.random.fork_rng(devices=[]):
            random.seed(number)
            np.random.seed(number)  # noqa: NPY002
            # `torch.manual_seed` would also note down a stack trace for each kind of device that this process does not
            # use.
            torch.default_generator.manual_seed(number)
            yield
    finally:
        random.setstate(before)
        np.random.set_state(numpy_before)  # noqa: NPY002
