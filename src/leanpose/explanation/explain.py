"""All figures that explain a model's prediction for one person, and their output folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8

from leanpose.codecs.base import Coordinates, Heatmaps, Prediction, SimCC
from leanpose.drawing.files import write_image
from leanpose.errors import LeanposeError, did_you_mean
from leanpose.explanation import figures
from leanpose.explanation.figures import Drawing, draw
from leanpose.explanation.person import PersonView, look_at
from leanpose.explanation.recording import record
from leanpose.files import atomic_write, describe_os_error, require_own_folder
from leanpose.locks import lock_folder
from leanpose.losses.distilpose import simulate_heatmaps
from leanpose.models.base import PoseModel
from leanpose.skeleton import Skeleton

MAX_MAPS = 24  # keypoints, where none are chosen
MARKER = ".leanpose-explain"  # lists the figures that were written, so that these alone are replaced


def choose_keypoints(skeleton: Skeleton, names: Sequence[str]) -> list[int]:
    """The indices of keypoints.

    Raises:
        LeanposeError: the skeleton has no keypoint of that name.
    """
    for name in names:
        if name not in skeleton.keypoints:
            known = did_you_mean(name, skeleton.keypoints)
            raise LeanposeError(f"The skeleton '{skeleton.name}' has no keypoint '{name}'; {known}")
    return [skeleton.keypoints.index(name) for name in dict.fromkeys(names)]


def explain(
    image: UInt8[np.ndarray, "H W 3"],
    box: Float[np.ndarray, " 4"],
    model: PoseModel,
    *,
    label: str,
    keypoints: Sequence[str] = (),
    teacher: PoseModel | None = None,
    others: Mapping[str, PoseModel] | None = None,
) -> list[Drawing]:
    """Plot attention, predictions and weights of a model for one person.

    Args:
        image: RGB.
        box: xyxy in pixels.
        label: name of the model in the figures.
        keypoints: names; by default, figures of single tokens or queries use the nose (or the first).
        teacher: a heatmap model of the same keypoints and crops, whose heatmaps and attention are shown for comparison.
        others: models whose weights are compared, by their name in the figure.

    Raises:
        LeanposeError: a keypoint is unknown, or the teacher does not fit.
    """
    chosen = choose_keypoints(model.skeleton, keypoints)
    student = _Inference(model, look_at(image, box, model), label, chosen)
    if teacher is None:
        drawings = [*student.attention(), *student.relations(), student.maps()]
    else:
        check_teacher(model, teacher)
        of_teacher = _Inference(teacher, look_at(image, box, teacher), "the teacher", chosen)
        beside = student.beside(of_teacher)
        drawings = [*student.attention(), *student.relations(), beside, *of_teacher.attention("teacher_")]
    compared = {name: weights_by_layer(each) for name, each in {label: model, **(others or {})}.items()}
    title = f"Weight distribution of {', '.join(compared)}"
    return [*drawings, draw("weights.png", title, figures.draw_weights, compared)]


def check_teacher(model: PoseModel, teacher: PoseModel) -> None:
    """Check that two models can be compared; the warp of their crops may differ.

    Raises:
        LeanposeError: their keypoints or the size of their crops differ.
    """
    if (teacher.skeleton.keypoints, teacher.input_size) != (model.skeleton.keypoints, model.input_size):
        that, this = (
            f"the {len(net.skeleton)} keypoints of '{net.skeleton.name}' in crops of {'x'.join(map(str, net.input_size))}"
            for net in (teacher, model)
        )
        raise LeanposeError(f"The teacher does not fit: '{teacher.name}' predicts {that}, '{model.name}' {this}.")


def weights_by_layer(model: PoseModel) -> list[Float[np.ndarray, " W"]]:
    """The matrices of each transformer layer, without biases and norms; without a transformer those of the whole
    network."""
    return [
        np.concatenate([p.detach().float().cpu().numpy().ravel() for p in layer.parameters() if p.ndim > 1])
        for layer in model.transformer_layers or [model]
    ]


class _Inference:
    """The inference of one model on one person's crop, for the figures.

    Args:
        label: name of the model in the figures.
        chosen: keypoints of interest; none: the nose for figures of one keypoint, all for the others.
    """

    def __init__(self, model: PoseModel, view: PersonView, label: str, chosen: Sequence[int]) -> None:
        self.model, self.view, self.label, self.chosen = model, view, label, chosen
        self.skeleton = model.skeleton
        self.recording = record(model, view.images)
        with torch.inference_mode():
            output = model(view.images) if self.recording is None else self.recording.output
        self.prediction: Prediction = output.prediction
        self.points = view.to_shown(model.codec.decode(self.prediction)[0][0].float().cpu().numpy())

    def attention(self, prefix: str = "") -> Iterator[Drawing]:
        """The attention of the tokens or queries of single keypoints over the crop; nothing for models without."""
        names = self.skeleton.keypoints
        if self.recording is not None:
            for k in self.chosen or [names.index("nose") if "nose" in names else 0]:
                yield self.recording.of_keypoint(k, names[k], self.label, self.view, prefix)

    def relations(self) -> Iterator[Drawing]:
        """The attention among the keypoints' tokens or queries, and how a decoder moves its points."""
        if self.recording is not None:
            yield from self.recording.among_keypoints(self.label, self.view, self.skeleton, self.points)

    def maps(self) -> Drawing:
        """The prediction for each keypoint."""
        maps, name, what = predicted_maps(self.view, self.model, self.prediction), "heatmaps.png", "heatmap"
        if maps is None:
            name, what = "points.png", "point"
        elif isinstance(self.prediction, Coordinates):
            name, what = "distributions.png", "Gaussian"
        title = f"The {what} that {self.label} predicts for each keypoint"
        return self._draw_maps(name, title, {self.label: maps}, "the keypoint that is decoded")

    def beside(self, teacher: _Inference) -> Drawing:
        """The teacher's heatmaps and what this student predicts.

        Raises:
            LeanposeError: the teacher predicts no heatmaps.
        """
        if not isinstance(teacher.prediction, Heatmaps):
            raise LeanposeError(f"The teacher '{teacher.model.name}' predicts no heatmaps; choose one that does.")
        maps = {
            name: predicted_maps(each.view, each.model, each.prediction)
            for name, each in (("teacher", teacher), ("student", self))
        }
        title = f"The teacher's heatmaps and what {self.label} predicts"
        return self._draw_maps("teacher_and_student.png", title, maps, "the student's keypoint")

    def _draw_maps(self, name: str, title: str, maps: Mapping[str, PredictedMaps | None], circled: str) -> Drawing:
        """Maps of the chosen keypoints, or of the first `MAX_MAPS`; empty ones for None."""
        count = len(self.skeleton)
        shown = list(self.chosen) or list(range(min(count, MAX_MAPS)))
        rest = f" · the first {MAX_MAPS} of {count} keypoints" if not self.chosen and count > MAX_MAPS else ""
        empty = np.zeros((count, 1, 1)), (0.0, 1.0, 1.0, 0.0)
        of_shown = {kind: ((each or empty)[0][shown], (each or empty)[1]) for kind, each in maps.items()}
        names, note = [self.skeleton.keypoints[k] for k in shown], f"circle: {circled}{rest}"
        return draw(name, title, figures.draw_maps, self.view.shown, of_shown, names, self.points[shown], note=note)


PredictedMaps = tuple[Float[np.ndarray, "K rows columns"], figures.Extent]
"""A map for each keypoint, and where they lie on the crop that is drawn upon."""


def predicted_maps(view: PersonView, model: PoseModel, prediction: Prediction) -> PredictedMaps | None:
    """A model's prediction for each keypoint as maps; None if it is only points.

    Heatmaps unchanged; SimCC's bins as the product of their softmaxes, with peak 1; coordinates with sigma as the
    Gaussian that DistilPose compares with a heatmap.
    """
    size = view.shown.shape[0], view.shown.shape[1]
    udp = False
    if isinstance(prediction, Heatmaps):
        maps, udp = prediction.heatmaps[0].float(), model.codec.warp == "udp"
    elif isinstance(prediction, SimCC):
        along_x, along_y = (bins[0].float().softmax(dim=-1) for bins in (prediction.x, prediction.y))
        maps = along_y[:, :, None] * along_x[:, None]
        maps = maps / maps.amax(dim=(1, 2), keepdim=True)
    elif prediction.sigma is None:
        return None
    else:
        # RLE's sigma is a fraction of the crop; DistilPose's is in pixels of the teacher's heatmap, a quarter as
        # fine.
        rows, columns = (1, 1) if "rle_sigma" in model.provides else (side / 4 for side in model.input_size)
        pixels = prediction.sigma.new_tensor([size[1] / columns, size[0] / rows])
        maps = simulate_heatmaps(prediction.xy, prediction.sigma * pixels, size)[0]
    return maps.cpu().numpy(), figures.map_extent((maps.shape[1], maps.shape[2]), size, udp=udp)


def write_drawings(folder: Path, drawings: Sequence[Drawing]) -> None:
    """Write PNG files instead of those of an earlier explanation; whatever else lies there stays.

    Raises:
        LeanposeError: the folder holds something else, or cannot be written.
    """
    require_own_folder(folder, MARKER, "explanation")
    marker = folder / MARKER
    with lock_folder(folder, wait=True):
        try:
            for name in marker.read_text(errors="replace").splitlines() if marker.exists() else ():
                (folder / Path(name).name).unlink(missing_ok=True)
        except OSError as error:
            raise describe_os_error(folder, error) from error
        with atomic_write(marker) as path:
            path.write_text("".join(f"{drawing.name}\n" for drawing in drawings))
        for drawing in drawings:
            write_image(drawing.image, folder / drawing.name)
