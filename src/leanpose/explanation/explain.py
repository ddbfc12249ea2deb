"""All figures that explain what a model does with one person, and the folder that they are written to."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8

from leanpose.codecs.base import Coordinates, Heatmaps, Prediction, SimCC
from leanpose.errors import LeanposeError, did_you_mean
from leanpose.explanation import figures
from leanpose.explanation.decoder_figures import draw_refinement, draw_sampling
from leanpose.explanation.person import PersonView, look_at
from leanpose.explanation.recording import AttentionRecording, DecoderRecording, record_attention, record_decoder
from leanpose.files import atomic_write, describe_os_error, require_own_folder
from leanpose.losses.distilpose import simulate_heatmaps
from leanpose.models.base import PoseModel
from leanpose.models.tfpose import STRIDES, TFPose
from leanpose.models.tokenpose import TokenPose
from leanpose.skeleton import Skeleton

MAX_MAPS = 24  # keypoints, where none are chosen
MARKER = ".leanpose-explain"  # lists the figures that were written, so that these alone are replaced


@dataclass(frozen=True)
class Drawing:
    """One figure, RGB, with the name of its file and its title."""

    name: str
    title: str
    image: UInt8[np.ndarray, "H W 3"]


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
    """Draw attention, predictions and weights of a model for one person.

    Args:
        image: RGB.
        box: xyxy in pixels.
        label: what the figures call the model.
        keypoints: names; the figures of single tokens or queries take the nose (or the first) where none are given.
        teacher: a heatmap model of the same keypoints and crops, whose heatmaps and attention stand beside.
        others: models whose weights are compared, by the name that the figure gives them.

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
    compared = {label: weights_by_layer(model)} | {name: weights_by_layer(m) for name, m in (others or {}).items()}
    title = f"How the weights of {', '.join(compared)} are distributed"
    return [*drawings, Drawing("weights.png", title, figures.draw_weights(compared, title))]


def check_teacher(model: PoseModel, teacher: PoseModel) -> None:
    """See that two models can be compared; the warp of their crops may differ.

    Raises:
        LeanposeError: their keypoints or the size of their crops differ.
    """
    if (teacher.skeleton.keypoints, teacher.input_size) != (model.skeleton.keypoints, model.input_size):
        that, this = (
            f"the {len(net.skeleton)} keypoints of '{net.skeleton.name}' in crops of {'x'.join(map(str, net.input_size))}"
            for net in (teacher, model)
        )
        raise LeanposeError(f"The teacher does not fit: '{teacher.name}' finds {that}, '{model.name}' {this}.")


def weights_by_layer(model: PoseModel) -> list[Float[np.ndarray, " W"]]:
    """The matrices of each transformer layer, without biases and norms; without a transformer those of the whole network."""
    layers = [model]
    if isinstance(model, TokenPose):
        layers = model.layers
    elif isinstance(model, TFPose):
        layers = [*model.encoder, *model.decoder]
    return [
        np.concatenate([p.detach().float().cpu().numpy().ravel() for p in layer.parameters() if p.ndim > 1])
        for layer in layers
    ]


class _Inference:
    """What one model makes of one person's crop, to be drawn.

    Args:
        label: what the figures call the model.
        chosen: keypoints of interest; none: the nose for figures of one keypoint, all for the others.
    """

    def __init__(self, model: PoseModel, view: PersonView, label: str, chosen: Sequence[int]) -> None:
        self.model, self.view, self.label, self.chosen = model, view, label, chosen
        self.skeleton = model.skeleton
        self.recording: AttentionRecording | DecoderRecording | None = None
        if isinstance(model, TokenPose):
            self.recording = record_attention(model, view.images)
        elif isinstance(model, TFPose):
            self.recording = record_decoder(model, view.images)
        with torch.inference_mode():
            output = model(view.images) if self.recording is None else self.recording.output
        self.prediction: Prediction = output.prediction
        self.points = view.to_shown(model.codec.decode(self.prediction)[0][0].float().cpu().numpy())

    def attention(self, prefix: str = "") -> Iterator[Drawing]:
        """What the tokens or queries of single keypoints attend to in the crop; nothing for models without."""
        names, recording, view = self.skeleton.keypoints, self.recording, self.view
        for k in self.chosen or [names.index("nose") if "nose" in names else 0]:
            file = re.sub(r"[^\w-]", "_", names[k]) + ".png"
            if isinstance(recording, AttentionRecording):
                maps = recording.by_cycle([layer.over_patches(k, recording.grid_size) for layer in recording.layers])
                title = f"Where the {names[k]} token of {self.label} looks"
                yield Drawing(f"{prefix}attention_{file}", title, figures.draw_attention(view.shown, maps, title))
            elif isinstance(recording, DecoderRecording):
                samples, references, points = (
                    view.to_shown(of_layers[:, k])
                    for of_layers in (recording.samples, recording.references, recording.points[1:])
                )
                title = f"Where the {names[k]} query of {self.label} reads the features"
                figure = draw_sampling(view.shown, samples, recording.weights[:, k], references, points, STRIDES, title)
                yield Drawing(f"{prefix}sampling_{file}", title, figure)

    def relations(self) -> Iterator[Drawing]:
        """The attention among the keypoints' tokens or queries; which patches are kept, or how points are moved."""
        if isinstance(self.recording, AttentionRecording):
            yield from self._among_tokens(self.recording)
        elif isinstance(self.recording, DecoderRecording):
            yield from self._among_queries(self.recording)

    def _among_tokens(self, recording: AttentionRecording) -> Iterator[Drawing]:
        among = recording.by_cycle([layer.among_keypoints for layer in recording.layers])
        depth = among.shape[1]
        parts = {"last layer": among[:, -1], f"mean of {depth} layers": among.mean(axis=1)}
        matrices = {}
        for cycle in range(recording.cycles):
            for name, attention in list(parts.items())[:depth]:
                rest = 1 - attention[cycle].sum(axis=1).mean()
                matrices[f"cycle {cycle + 1}, {name}: {rest:.0%} goes to patches"] = attention[cycle]
        title = f"Attention among the keypoint tokens of {self.label}"
        figure = figures.draw_matrices(matrices, min(depth, 2), self.skeleton.keypoints, title)
        yield Drawing("keypoint_attention.png", title, figure)
        title += ", on the person"
        links = figures.draw_links(self.view.shown, self.points, among.mean(axis=1), self.skeleton, title)
        yield Drawing("keypoint_links.png", title, links)

    def _among_queries(self, recording: DecoderRecording) -> Iterator[Drawing]:
        shown, points = self.view.shown, self.view.to_shown(recording.points)
        title = f"How {self.label} moves its points, layer by layer"
        yield Drawing("refinement.png", title, draw_refinement(shown, points, self.skeleton, title))
        if recording.query_attention is None:
            return
        among = recording.query_attention.mean(axis=1)  # over the heads
        title = f"Attention among the queries of {self.label}"
        matrices = {f"layer {layer + 1}": among[layer] for layer in figures.chosen_layers(len(among))}
        figure = figures.draw_matrices(matrices, figures.column_count(len(matrices)), self.skeleton.keypoints, title)
        yield Drawing("query_attention.png", title, figure)
        title += ", on the person"
        links = figures.draw_links(shown, points[-1], among, self.skeleton, title, part="layer")
        yield Drawing("query_links.png", title, links)

    def maps(self) -> Drawing:
        """What is predicted of each keypoint."""
        maps, name, what = predicted_maps(self.view, self.model, self.prediction), "heatmaps.png", "heatmap"
        if maps is None:
            name, what = "points.png", "point"
        elif isinstance(self.prediction, Coordinates):
            name, what = "distributions.png", "Gaussian"
        title = f"The {what} that {self.label} predicts for each keypoint"
        return Drawing(name, title, self.draw_maps({self.label: maps}, title, "the keypoint that is decoded"))

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
        return Drawing("teacher_and_student.png", title, self.draw_maps(maps, title, "the student's keypoint"))

    def draw_maps(
        self, maps: dict[str, Float[np.ndarray, "K h w"] | None], title: str, circled: str
    ) -> UInt8[np.ndarray, "H W 3"]:
        """Maps of the chosen keypoints, or of the first `MAX_MAPS`; empty ones for None."""
        count = len(self.skeleton)
        shown = list(self.chosen) or list(range(min(count, MAX_MAPS)))
        rest = f" · the first {MAX_MAPS} of {count} keypoints" if not self.chosen and count > MAX_MAPS else ""
        empty = np.zeros((count, *self.view.shown.shape[:2]))
        return figures.draw_maps(
            self.view.shown,
            {kind: (empty if stack is None else stack)[shown] for kind, stack in maps.items()},
            [self.skeleton.keypoints[k] for k in shown],
            self.points[shown],
            title,
            f"circle: {circled}{rest}",
        )


def predicted_maps(view: PersonView, model: PoseModel, prediction: Prediction) -> Float[np.ndarray, "K h w"] | None:
    """What a model predicts of each keypoint, as maps over the crop that is drawn upon; None where it is only points.

    A heatmap as it is; SimCC's two rows of bins as the product of their softmaxes, its peak 1; coordinates with deviations as
    the Gaussian that DistilPose compares with a heatmap.
    """
    size = view.shown.shape[0], view.shown.shape[1]
    if isinstance(prediction, Heatmaps):
        maps = prediction.heatmaps[0].float().cpu().numpy()
        return np.stack([figures.stretch(heatmap, size, udp=model.codec.warp == "udp") for heatmap in maps])
    if isinstance(prediction, SimCC):
        along_x, along_y = (bins[0].float().softmax(dim=-1) for bins in (prediction.x, prediction.y))
        product = along_y[:, :, None] * along_x[:, None]
        product = product / product.amax(dim=(1, 2), keepdim=True)
        return np.stack([figures.stretch(row.cpu().numpy(), size, udp=False) for row in product])
    if prediction.sigma is None:
        return None
    # RLE's deviations are fractions of the crop; DistilPose's are pixels of the teacher's heatmap, a quarter as fine.
    rows, columns = (1, 1) if "rle_sigma" in model.provides else (side / 4 for side in model.input_size)
    pixels = prediction.sigma.new_tensor([size[1] / columns, size[0] / rows])
    return simulate_heatmaps(prediction.xy, prediction.sigma * pixels, size)[0].cpu().numpy()


def write_drawings(folder: Path, drawings: Sequence[Drawing]) -> None:
    """Write PNG files in place of those of an earlier explanation; whatever else lies there stays.

    Raises:
        LeanposeError: the folder holds something else, or cannot be written.
    """
    from PIL import Image

    require_own_folder(folder, MARKER, "explanation")
    marker = folder / MARKER
    try:
        for name in marker.read_text().splitlines() if marker.exists() else ():
            (folder / Path(name).name).unlink(missing_ok=True)
    except OSError as error:
        raise describe_os_error(folder, error) from error
    with atomic_write(marker) as path:
        path.write_text("".join(f"{drawing.name}\n" for drawing in drawings))
    for drawing in drawings:
        with atomic_write(folder / drawing.name) as path:
            Image.fromarray(drawing.image).save(path)
