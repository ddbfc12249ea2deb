"""Images as users hand them over: as a file, bytes, an array or a Pillow image, or as names of files and folders."""

from __future__ import annotations

import glob
import os
import sys
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias, Union

import numpy as np
from jaxtyping import UInt8

from leanpose.data.bit_depth import FRACTION_TOLERANCE
from leanpose.data.image_files import SUFFIXES, max_bytes
from leanpose.data.images import BrokenImageError, pillow_to_rgb, read_image, read_image_and_notices, warn_of
from leanpose.data.prefetch import threaded_map
from leanpose.data.urls import check_scheme, download_image, is_live, is_url, url_name, url_suffix, without_password
from leanpose.data.video_files import VIDEO_SUFFIXES
from leanpose.device import available_cores
from leanpose.errors import LeanposeError

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

MOVING_SUFFIXES = {".gif", ".webp", ".png", ".apng", ".avif"}  # of files that may be animated

ImageInput: TypeAlias = Union[str, Path, bytes, BinaryIO, np.ndarray, "Image", "Tensor"]
"""One image: a file's path, a file's bytes, an opened file (`BytesIO`, …), a Pillow image, an array or a tensor.

Arrays are RGB, (H, W, 3), or grey, (H, W) or (H, W, 1); a fourth channel is the opacity, and transparent parts become
white. Tensors may be (3, H, W) and (1, H, W) too, which is how a first side of 1, 3 or 4 is understood. The values are
uint8, or floating-point numbers from 0 to 1.
"""

ImageSource: TypeAlias = ImageInput | Iterable[ImageInput]
"""One image; or many: a folder, a glob pattern, any iterable, or an array or tensor of four dimensions."""

STDIN = "-"


@dataclass(frozen=True)
class ImageFile:
    """An input image.

    Attributes:
        path: of the file; of other images their name.
        name: its place below the folder that all inputs have in common; in POSIX form.
        image_id: the number that stands for it in COCO results.
        content: the bytes of an image that is not a file: from standard input or from the web.
    """

    path: Path
    name: str
    image_id: int
    content: bytes | None = field(default=None, repr=False)

    def read(self) -> UInt8[np.ndarray, "H W 3"]:
        """The image as RGB.

        Raises:
            BrokenImageError: it cannot be read.
        """
        return warn_of(*self.read_with_notices())

    def read_with_notices(self) -> tuple[UInt8[np.ndarray, "H W 3"], list[str]]:
        """As `read`, with the sentences that it warns of."""
        if self.content is None:
            return read_image_and_notices(self.path)
        return read_image_and_notices(self.content, name=self.name)


@dataclass(frozen=True)
class Clip:
    """An input video.

    Attributes:
        source: where it is, its address (`http://…`, `rtsp://…`), or the number of a camera.
        name: its place below the folder that all inputs have in common, in POSIX form; `camera0` for camera 0.
    """

    source: Path | str | int
    name: str

    @property
    def live(self) -> bool:
        """Whether it does not wait, and runs until it is stopped: a camera, or a stream of a network."""
        return isinstance(self.source, int) or (isinstance(self.source, str) and is_live(self.source))


@dataclass(frozen=True)
class Inputs:
    """The images and videos that a user's arguments name.

    Attributes:
        images, clips: images and videos, each once.
        others: names of files in folders that end like neither.
        links: names of links that are left out, since the file they lead to is among the others, or since they lead
            to a folder.
        unreadable: names of unreadable folders.
        root: the folder in which the names begin; None where there are no files, or files on several drives.
    """

    images: list[ImageFile]
    clips: list[Clip]
    others: list[str]
    links: list[str]
    unreadable: list[str]
    root: Path | None


def find_inputs(
    arguments: Sequence[str],
    *,
    besides: Path | None = None,
    is_video: Callable[[Path], bool] = lambda path: False,
    allow_url: bool = False,
) -> Inputs:
    """The images and videos meant by files, folders (with all below them), glob patterns that the shell did not
    expand, addresses, numbers of cameras, and `-` (an image from standard input).

    Files in folders count by their endings. A file that is named itself counts as a video where it ends like one, or
    where it ends like nothing that is known and holds one; otherwise as an image. Animated images count as videos. Each
    is named by its path below the folder that all files and folders have in common. An image that is called by a
    number, as COCO's are, has that number as its id (unless two share it, in which case nobody's name counts); the
    others are numbered on from there.

    Addresses that end like images are images, the others are videos. With `allow_url` images are loaded at once, and
    those whose address ends like nothing that is known are recognised by what their server says.

    Args:
        arguments: as typed.
        besides: a folder to leave out, where earlier results may lie.
        is_video: whether a file holds a video: one whose name ends like nothing that is known, or like an image that
            may be animated.
        allow_url: whether images may be loaded from the web.

    Raises:
        LeanposeError: there are no inputs, a file is missing, a folder is unreadable, or an address cannot
            be used.
    """
    if list(arguments).count(STDIN) > 1:
        raise LeanposeError(f"Standard input ({STDIN}) holds one image; it cannot be given twice.")
    found = _Found(besides, is_video)
    for argument in arguments:
        if argument == STDIN:
            found.contents["stdin"] = _read_stdin()
        elif is_url(argument):
            found.add_url(argument, allow_url)
        elif argument.isascii() and argument.isdigit() and not Path(argument).exists():
            found.sources.setdefault(int(argument), f"camera{int(argument)}")
        else:
            for path in _expand(argument):
                found.add_path(path)
    return found.inputs(arguments)


class _Found:
    """Collects inputs by their resolved paths; they are named once all paths are known."""

    def __init__(self, besides: Path | None, is_video: Callable[[Path], bool]) -> None:
        self.besides, self.is_video = besides, is_video
        self.images: dict[Path, Path] = {}  # resolved → as it was found
        self.clips: dict[Path, Path] = {}
        self.sources: dict[str | int, str] = {}  # videos that are not files: source → name
        self.contents: dict[str, bytes] = {}  # images that are not files: name → bytes
        self.roots: set[Path] = set()
        self.others: list[Path] = []
        self.links: list[Path] = []
        self.unreadable: list[Path] = []

    def add_path(self, path: Path) -> None:
        """A file, or a folder with all below it."""
        path = Path(os.path.abspath(path))  # keeps links, whose names the user knows
        if not path.is_dir():
            self.roots.add(path.parent)
            self._add_file(path)
            return
        self.roots.add(path)
        for file in _files_below(path, self.besides, self.unreadable):
            if file.is_dir():
                self.links.append(file)
            elif file.suffix.lower() in SUFFIXES | VIDEO_SUFFIXES:
                self._add_file(file)
            else:
                self.others.append(file)

    def _add_file(self, path: Path) -> None:
        ending = path.suffix.lower()
        unclear = (ending not in SUFFIXES or ending in MOVING_SUFFIXES) and path.is_file()
        video = ending in VIDEO_SUFFIXES or (unclear and self.is_video(path))
        if (self.clips if video else self.images).setdefault(path.resolve(), path) != path:
            self.links.append(path)

    def add_url(self, url: str, allow_url: bool) -> None:
        """An image on the web, or a video."""
        check_scheme(url)
        image, video = url_suffix(url) in SUFFIXES, url_suffix(url) in VIDEO_SUFFIXES
        web = url.lower().startswith("http")
        if web and image and not allow_url:
            raise LeanposeError(f"{without_password(url)} is an image on the web, loaded only with --allow-url.")
        content = download_image(url, certain=image) if web and allow_url and not video else None
        if content is None:
            self.sources.setdefault(url, url_name(url))
        else:
            self.contents[url_name(url)] = content

    def inputs(self, arguments: Sequence[str]) -> Inputs:
        """All that was found, named and numbered.

        Raises:
            LeanposeError: that is nothing.
        """
        try:
            root = Path(os.path.commonpath(self.roots))
        except ValueError:  # there are none, or they lie on several drives
            root = None

        def name(path: Path) -> str:
            return path.relative_to(root).as_posix() if root else path.as_posix().replace(":", "").lstrip("/")

        others = [name(path) for path in self.others]
        if not (self.images or self.clips or self.sources or self.contents):
            there = f"; the files there do not end like either ({', '.join(others[:3])})" if others else ""
            there += f"; {len(self.unreadable)} folders there may not be read" if self.unreadable else ""
            raise LeanposeError(f"There are no images or videos in {', '.join(arguments)}{there}.")
        clips = [Clip(source, name(path)) for source, path in self.clips.items()]
        clips += [Clip(source, given) for source, given in self.sources.items()]
        images = _numbered({path: name(found) for path, found in self.images.items()}, self.contents)
        return Inputs(
            images, clips, others, [name(path) for path in self.links], [name(path) for path in self.unreadable], root
        )


def _numbered(images: dict[Path, str], contents: dict[str, bytes]) -> list[ImageFile]:
    """Images with the ids that their names give."""
    ids = image_ids([path.stem for path in images] + [""] * len(contents))
    files = [ImageFile(path, name, i) for (path, name), i in zip(images.items(), ids, strict=False)]
    return files + [
        ImageFile(Path(name), name, i, content)
        for (name, content), i in zip(contents.items(), ids[len(files) :], strict=True)
    ]


def image_ids(stems: Sequence[str]) -> list[int]:
    """The ids of images by the stems of their names: the numbers that these are, unless two are the same; the others
    are numbered on from there."""
    numbers = [int(stem) if stem.isascii() and stem.isdigit() else None for stem in stems]
    given = [number for number in numbers if number is not None]
    if len({*given}) < len(given):
        numbers, given = [None] * len(numbers), []
    free = count(max(given, default=0) + 1)
    return [next(free) if number is None else number for number in numbers]


def _files_below(folder: Path, besides: Path | None, unreadable: list[Path]) -> Iterator[Path]:
    """The files in a folder and in those below it, pipes and devices too, and links to folders, which are not followed;
    without hidden ones.

    Args:
        besides: a folder to leave out.
        unreadable: gets the folders below that may not be read.
    """
    if not os.access(folder, os.R_OK | os.X_OK):
        raise LeanposeError(f"The folder {folder} cannot be read: permission denied.")
    excluded = None if besides is None or besides.resolve() == folder.resolve() else besides.resolve()
    found: list[Path] = []
    for above, folders, files in os.walk(folder, onerror=lambda error: unreadable.append(Path(error.filename))):
        folders[:] = [name for name in folders if not name.startswith(".")]
        linked = [name for name in folders if os.path.islink(os.path.join(above, name))]
        found += [Path(above, name) for name in (*files, *linked) if not name.startswith(".")]
    yield from (file for file in sorted(found) if excluded not in file.resolve().parents)


def _read_stdin() -> bytes:
    if sys.stdin.isatty():
        raise LeanposeError("- reads an image from standard input, but nothing is piped in.")
    content = sys.stdin.buffer.read(max_bytes() + 1)
    if not content:
        raise LeanposeError("Standard input is empty (0 bytes).")
    if len(content) > max_bytes():
        raise LeanposeError(f"Standard input has more than the {max_bytes() / 1e6:.0f} MB allowed for an image.")
    return content


def _expand(argument: str) -> list[Path]:
    path = Path(argument).expanduser()
    if path.exists():
        return [path]
    if not glob.has_magic(argument):
        raise LeanposeError(f"There is no file or folder {argument}.")
    matches = sorted(glob.glob(str(path), recursive=True))
    if not matches:
        raise LeanposeError(f"No file matches the pattern {argument}.")
    return [Path(match) for match in matches]


def read_ahead(
    images: Sequence[ImageFile], notice: Callable[[ImageFile, str], None]
) -> Generator[tuple[ImageFile, UInt8[np.ndarray, "H W 3"] | BrokenImageError], None, None]:
    """The images' pixels in order, read by other threads ahead of their use; for an unusable one the reason.

    Args:
        images: to read.
        notice: called by those threads with a sentence on a guess about an image or on something left out.
    """

    def read(image: ImageFile) -> UInt8[np.ndarray, "H W 3"] | BrokenImageError:
        try:
            pixels, notices = image.read_with_notices()
        except BrokenImageError as error:
            return error
        for sentence in notices:
            notice(image, sentence)
        return pixels

    # Reading takes less than half of the time of pose estimation.
    return threaded_map(read, images, (available_cores() + 1) // 2)


def are_many(images: ImageSource) -> bool:
    """Whether these are many images (perhaps none), and not one."""
    if isinstance(images, (str, Path)):
        path = Path(images)
        return not is_url(images) and (path.is_dir() or (glob.has_magic(str(images)) and not path.exists()))
    if isinstance(images, np.ndarray) or _is_tensor(images):
        return images.ndim == 4  # pyright: ignore[reportAttributeAccessIssue]
    return isinstance(images, Iterable) and not isinstance(images, bytes) and not hasattr(images, "read")


def each_image(images: Any) -> Iterator[ImageInput]:
    """One image after the other, folders and glob patterns by the paths of their files.

    Videos and links to images that are there already are left out of these, with a warning.

    Raises:
        LeanposeError: a folder or a pattern holds no image.
    """
    if not are_many(images):
        yield images
    elif not isinstance(images, (str, Path)):
        for image in images:
            yield from each_image(image)
    else:
        inputs = find_inputs([str(images)])
        if not inputs.images:
            raise LeanposeError(f"There are no images in {images}.")
        left_out = {
            "videos and links": [clip.name for clip in inputs.clips] + inputs.links,
            "folders that may not be read": inputs.unreadable,
        }
        for what, names in left_out.items():
            if names:
                some = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
                warnings.warn(f"{len(names)} {what} in {images} are left out: {some}.", stacklevel=3)
        yield from (file.path for file in inputs.images)


def stream_content(image: ImageInput) -> ImageInput:
    """The bytes of an opened file, which can be read only once; everything else as it is.

    Raises:
        LeanposeError: it was opened as a text.
    """
    if not hasattr(image, "read"):
        return image
    content = image.getvalue() if isinstance(image, BytesIO) else image.read()  # pyright: ignore
    if not isinstance(content, bytes):
        raise LeanposeError("An image was opened as a text; open it with the mode 'rb'.")
    return content


def as_rgb(image: ImageInput) -> UInt8[np.ndarray, "H W 3"]:
    """The image as RGB uint8 (H, W, 3), upright, whatever form it came in.

    Raises:
        LeanposeError: it cannot be read, or is an array of another form.
    """
    image = stream_content(image)
    if isinstance(image, np.ndarray):
        return _from_array(image, "array")
    if _is_tensor(image):
        return _from_tensor(image)  # pyright: ignore[reportArgumentType]
    if isinstance(image, str) and is_url(image):
        raise LeanposeError(f"{without_password(image)} is an address; load the image first and give its bytes.")
    if isinstance(image, (str, Path)) and Path(image).suffix.lower() in VIDEO_SUFFIXES:
        raise LeanposeError(f"{image} is a video; use `leanpose predict` or leanpose.video.predict.")
    if isinstance(image, (str, Path, bytes)):
        return read_image(image)
    from PIL.Image import Image as PillowImage

    if isinstance(image, PillowImage):
        return _from_pillow(image)
    raise LeanposeError(
        f"An image is a path, bytes, an open file, an array or a Pillow image, not {type(image).__name__}."
    )


def _is_tensor(image: object) -> bool:
    torch = sys.modules.get("torch")  # loaded wherever there is a tensor; importing it here would take a second
    return torch is not None and isinstance(image, torch.Tensor)


def _from_tensor(image: Tensor) -> UInt8[np.ndarray, "H W 3"]:
    values = image.detach().cpu()
    array = (values.float() if values.is_floating_point() else values).numpy()  # NumPy has no bfloat16
    if array.ndim == 3 and array.shape[0] in (1, 3, 4):
        array = array.transpose(1, 2, 0)
    return _from_array(array, "tensor")


def _from_array(image: np.ndarray, kind: str) -> UInt8[np.ndarray, "H W 3"]:
    """An RGB, RGBA or grey array; one that is RGB uint8 already comes back itself."""
    values = image[:, :, None] if image.ndim == 2 else image
    floating = np.issubdtype(image.dtype, np.floating)
    form = values.ndim == 3 and values.shape[2] in (1, 3, 4) and 0 not in values.shape
    if not form or not (floating or image.dtype == np.uint8):
        raise LeanposeError(
            f"An image {kind} must be RGB (height, width, 3) or grey, uint8 or 0 to 1, not {image.dtype} {image.shape}."
        )
    if floating:
        low, high = float(values.min()), float(values.max())
        if not (low >= -FRACTION_TOLERANCE and high <= 1 + FRACTION_TOLERANCE):  # not a number is neither
            raise LeanposeError(f"Images in floating point lie between 0 and 1, not between {low:g} and {high:g}.")
        values = np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
    if values.shape[2] == 4:
        from PIL.Image import fromarray

        return warn_of(*pillow_to_rgb(fromarray(np.ascontiguousarray(values)), f"given as {kind}"))
    return np.repeat(values, 3, axis=2) if values.shape[2] == 1 else values


def _from_pillow(image: Image) -> UInt8[np.ndarray, "H W 3"]:
    name = str(getattr(image, "filename", "") or "given by Pillow")
    try:
        return warn_of(*pillow_to_rgb(image, name))
    except (OSError, SyntaxError, ValueError) as error:  # Pillow reads the pixels late, so damage shows only here
        raise BrokenImageError(f"The image {name} cannot be decoded: {error}.") from error
