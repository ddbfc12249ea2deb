"""All figures that explain what a model does with one person, and the folder that they are written to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from re import sub

import numpy as np
import torch
from jaxtyping import Float, UInt8

from leanpose.codecs.base import Coordinates, Heatmaps, Prediction, SimCC
from leanpose.errors import LeanposeError, did_you_mean
from leanpose.explanation.decoder_figures import draw_refinement, draw_sampling
from leanpose.explanation.figures import (
    chosen_layers,
    column_count,
    draw_attention,
    draw_kept,
    draw_links,
    draw_maps,
    draw_matrices,
    draw_weights,
    stretch,
)
from leanpose.explanation.person import PersonView, look_at
from leanpose.explanation.recording import AttentionRecording, DecoderRecording, record_attention, record_decoder
from leanpose.files import atomic_write, describe_os_error
from leanpose.losses.distilpose import simulate_heatmaps
from leanpose.models.base import PoseModel
from leanpose.models.tfpose import STRIDES, TFPose
from leanpose.models.tokenpose import TokenPose
from leanpose.skeleton import Skeleton

MAX_MAPS = 24  # keypoints, where none are chosen
MARKER = ".leanpose-explain"  # lists the figures that were written, so that these alone are replaced


@dataclass(frozen=True)
class Drawing:
    """One figure, RGB, with the name of its file and a line that says what it shows."""

    name: str
    caption: str
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
    drawings = student.attention()
    if teacher is None:
        drawings.append(student.maps())
    else:
        check_teacher(model, teacher)
        of_teacher = _Inference(teacher, look_at(image, box, teacher), "the teacher", chosen)
        drawings.append(student.beside(of_teacher))
        drawings += of_teacher.token_attention("teacher_")
    compared = {label: weights_by_layer(model)} | {name: weights_by_layer(m) for name, m in (others or {}).items()}
    figure = draw_weights(compared, f"Weights of {', '.join(compared)}")
    return [*drawings, Drawing("weights.png", "how the weights are distributed", figure)]


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

    def single_keypoints(self) -> list[tuple[int, str]]:
        """Index and name of the keypoints whose own attention is drawn."""
        names = self.skeleton.keypoints
        return [(k, names[k]) for k in self.chosen or [names.index("nose") if "nose" in names else 0]]

    def attention(self) -> list[Drawing]:
        """What tokens or queries attend to, where there are any."""
        if isinstance(self.recording, DecoderRecording):
            return self.decoder(self.recording)
        if isinstance(self.recording, AttentionRecording):
            return [*self.token_attention(), *self.token_relations(self.recording)]
        return []

    def token_attention(self, prefix: str = "") -> list[Drawing]:
        """What the tokens of single keypoints attend to in the crop; nothing for models without."""
        recording, drawings = self.recording, []
        if not isinstance(recording, AttentionRecording):
            return []
        for k, name in self.single_keypoints():
            maps = recording.by_cycle([layer.over_patches(k, recording.grid_size) for layer in recording.layers])
            figure = draw_attention(self.view.shown, maps, f"Where the {name} token of {self.label} looks")
            whose = " of the teacher" if prefix else ""
            caption = f"attention of the {name} token{whose} to the patches, by layer and cycle"
            drawings.append(Drawing(_file(f"{prefix}attention_{name}"), caption, figure))
        return drawings

    def token_relations(self, recording: AttentionRecording) -> list[Drawing]:
        """The attention among the keypoint tokens, and which patches are left to attend to."""
        among = recording.by_cycle([layer.among_keypoints for layer in recording.layers])
        depth = among.shape[1]
        parts = {"last layer": among[:, -1], f"mean of {depth} layers": among.mean(axis=1)}
        matrices = {}
        for cycle in range(recording.cycles):
            for name, attention in list(parts.items())[:depth]:
                rest = 1 - attention[cycle].sum(axis=1).mean()
                matrices[f"cycle {cycle + 1}, {name}: {rest:.0%} goes to patches"] = attention[cycle]
        title = f"Attention among the keypoint tokens of {self.label}"
        matrix = draw_matrices(matrices, min(depth, 2), self.skeleton.keypoints, title, whose="token")
        on_person = f"{title}, on the person"
        links = draw_links(self.view.shown, self.points, among.mean(axis=1), self.skeleton, on_person)
        drawings = [
            Drawing("keypoint_attention.png", "attention among the keypoint tokens, by cycle", matrix),
            Drawing("keypoint_links.png", "the strongest of it, as arrows on the person", links),
        ]
        if recording.kept:
            title = f"The patches that {self.label} keeps"
            kept = draw_kept(self.view.shown, recording.kept, recording.grid_size, title)
            drawings.append(Drawing("kept_patches.png", "the patches that are kept, layer by layer", kept))
        return drawings

    def decoder(self, recording: DecoderRecording) -> list[Drawing]:
        """Where queries read the features, how the decoder moves its points, and whom the queries attend to."""
        shown, points, drawings = self.view.shown, self.view.to_shown(recording.points), []
        samples, references = self.view.to_shown(recording.samples), self.view.to_shown(recording.references)
        for k, name in self.single_keypoints():
            title = f"Where the {name} query of {self.label} reads the features"
            figure = draw_sampling(
                shown, samples[:, k], recording.weights[:, k], references[:, k], points[1:, k], STRIDES, title
            )
            caption = f"the sampling points of the {name} query and their weights, by decoder layer"
            drawings.append(Drawing(_file(f"sampling_{name}"), caption, figure))
        moves = draw_refinement(shown, points, self.skeleton, f"How {self.label} moves its points, layer by layer")
        drawings.append(Drawing("refinement.png", "the points before the first decoder layer and after each", moves))
        among = recording.among_queries
        if among is None:
            return drawings
        title = f"Attention among the queries of {self.label}"
        matrices = {f"layer {layer + 1}": among[layer] for layer in chosen_layers(len(among))}
        columns = column_count(len(matrices))
        matrix = draw_matrices(matrices, columns, self.skeleton.keypoints, title, whose="query")
        links = draw_links(shown, points[-1], among, self.skeleton, f"{title}, on the person", part="layer")
        return [
            *drawings,
            Drawing("query_attention.png", "attention among the queries, by decoder layer", matrix),
            Drawing("query_links.png", "the strongest of it, as arrows on the person", links),
        ]

    def maps(self) -> Drawing:
        """What is predicted of each keypoint."""
        maps, name, what = predicted_maps(self.view, self.model, self.prediction), "heatmaps.png", "the heatmap"
        if maps is None:
            name, what = "points.png", "the point"
        elif isinstance(self.prediction, Coordinates):
            name, what = "distributions.png", "the Gaussian"
        title = f"{what.capitalize()} that {self.label} predicts for each keypoint"
        figure = self.draw_maps({self.label: maps}, title, "the keypoint that is decoded")
        return Drawing(name, f"{what} that is predicted for each keypoint", figure)

    def beside(self, teacher: _Inference) -> Drawing:
        """The teacher's heatmaps and what this student predicts.

        Raises:
            LeanposeError: the teacher predicts no heatmaps.
        """
        if not isinstance(teacher.prediction, Heatmaps):
            raise LeanposeError(f"The teacher '{teacher.model.name}' predicts no heatmaps; choose one that does.")
        maps = {
            "teacher": predicted_maps(teacher.view, teacher.model, teacher.prediction),
            "student": predicted_maps(self.view, self.model, self.prediction),
        }
        title = f"The teacher's heatmaps and what {self.label} predicts"
        figure = self.draw_maps(maps, title, "the student's keypoint")
        return Drawing("teacher_and_student.png", "the teacher's heatmap beside the student's prediction", figure)

    def draw_maps(
        self, maps: dict[str, Float[np.ndarray, "K h w"] | None], title: str, circled: str
    ) -> UInt8[np.ndarray, "H W 3"]:
        """Maps of the chosen keypoints, or of the first `MAX_MAPS`; empty ones for None."""
        count = len(self.skeleton)
        shown = list(self.chosen) or list(range(min(count, MAX_MAPS)))
        rest = f" · the first {MAX_MAPS} of {count} keypoints" if not self.chosen and count > MAX_MAPS else ""
        empty = np.zeros((count, *self.view.shown.shape[:2]))
        return draw_maps(
            self.view.shown,
            {kind: (empty if stack is None else stack)[shown] for kind, stack in maps.items()},
            [self.skeleton.keypoints[k] for k in shown],
            self.points[shown],
            title,
            f"circle: {circled}{rest}",
        )


def _file(name: str) -> str:
    return sub(r"[^\w-]", "_", name) + ".png"


def predicted_maps(view: PersonView, model: PoseModel, prediction: Prediction) -> Float[np.ndarray, "K h w"] | None:
    """What a model predicts of each keypoint, as maps over the crop that is drawn upon; None where it is only points.

    A heatmap as it is; SimCC's two rows of bins as the product of their softmaxes, its peak 1; coordinates with deviations as
    the Gaussian that DistilPose compares with a heatmap.
    """
    size = view.shown.shape[0], view.shown.shape[1]
    if isinstance(prediction, Heatmaps):
        maps = prediction.heatmaps[0].float().cpu().numpy()
        return np.stack([stretch(heatmap, size, udp=model.codec.warp == "udp") for heatmap in maps])
    if isinstance(prediction, SimCC):
        along_x, along_y = (bins[0].float().softmax(dim=-1) for bins in (prediction.x, prediction.y))
        product = along_y[:, :, None] * along_x[:, None]
        product = product / product.amax(dim=(1, 2), keepdim=True)
        return np.stack([stretch(row.cpu().numpy(), size, udp=False) for row in product])
    if prediction.sigma is None:
        return None
    # RLE's deviations are fractions of the crop; DistilPose's are pixels of the teacher's heatmap, a quarter as fine.
    rows, columns = (1, 1) if "rle_sigma" in model.provides else (side / 4 for side in model.input_size)
    pixels = prediction.sigma.new_tensor([size[1] / columns, size[0] / rows])
    return simulate_heatmaps(prediction.xy, prediction.sigma * pixels, size)[0].cpu().numpy()


def check_folder(folder: Path) -> None:
    """Whether figures may be written there.

    Raises:
        LeanposeError: it is a file, or holds something that is not an earlier explanation.
    """
    if folder.exists() and not folder.is_dir():
        raise LeanposeError(f"{folder} is a file; choose another --out.")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARKER).exists():
        raise LeanposeError(f"{folder} holds something that is not an earlier explanation; choose another --out.")


def write_drawings(folder: Path, drawings: Sequence[Drawing]) -> None:
    """Write PNG files in place of those of an earlier explanation; whatever else lies there stays.

    Raises:
        LeanposeError: as for `check_folder`, or the folder cannot be written.
    """
    from PIL import Image

    check_folder(folder)
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
