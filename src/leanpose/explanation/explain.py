"""All pictures that explain what a model does with one person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from re import sub

import numpy as np
import torch
from jaxtyping import Float, UInt8

from leanpose.codecs.base import Coordinates, Heatmaps, Prediction, SimCC
from leanpose.drawing.attention import (
    draw_attention,
    draw_kept,
    draw_keypoint_attention,
    draw_links,
    draw_query_attention,
)
from leanpose.drawing.maps import draw_maps, stretch
from leanpose.drawing.sampling import draw_refinement, draw_sampling
from leanpose.drawing.weights import draw_weights
from leanpose.errors import LeanposeError, did_you_mean
from leanpose.explanation.attention import Recording, record_attention
from leanpose.explanation.deformable import DecoderRecording, record_decoder
from leanpose.explanation.person import PersonView, look_at
from leanpose.losses.base import require_same_crops
from leanpose.losses.distilpose import simulate_heatmaps
from leanpose.models.base import PoseModel
from leanpose.models.tfpose import STRIDES, TFPose
from leanpose.models.tokenpose import TokenPose
from leanpose.skeleton import Skeleton

MOST_MAPS = 24  # keypoints, where none are chosen


@dataclass(frozen=True)
class Drawing:
    """One picture, RGB, with the name of its file and a line that says what it shows."""

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
    """Draw all that there is to see of a model at work on one person.

    Args:
        image: RGB.
        box: xyxy in pixels.
        label: what the pictures call the model.
        keypoints: names; the pictures of single tokens or queries take the nose (or the first) where none are given.
        teacher: a heatmap model of the same keypoints and crops, whose heatmaps and attention stand beside.
        others: models whose weights are compared, by the name that the picture gives them.

    Raises:
        LeanposeError: a keypoint is unknown, or the teacher does not fit.
    """
    chosen = choose_keypoints(model.skeleton, keypoints)
    if teacher is not None:
        require_same_crops(model, teacher)
    view = look_at(image, box, model)
    prediction, recording = _run(model, view)
    drawings = []
    if isinstance(recording, DecoderRecording):
        drawings += _sampling(recording, view, model.skeleton, chosen, label)
        drawings += _refinement(recording, view, model.skeleton, label)
    elif recording is not None:
        drawings += _gaze(recording, view, model.skeleton, chosen, label)
        drawings += _relations(recording, view, model, label)
    if teacher is None:
        drawings += _maps(view, model, prediction, label, chosen)
    else:
        theirs = look_at(image, box, teacher)
        lesson, looks = _run(teacher, theirs)
        drawings += _comparison(view, (model, prediction), (teacher, lesson), label, chosen)
        if isinstance(looks, Recording):
            drawings += _gaze(looks, theirs, teacher.skeleton, chosen, "the teacher", "teacher_")
    compared = {label: weights_by_layer(model)} | {name: weights_by_layer(m) for name, m in (others or {}).items()}
    picture = draw_weights(compared, f"Weights of {', '.join(compared)}")
    return [*drawings, Drawing("weights.png", "how the weights are distributed", picture)]


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


def _run(model: PoseModel, view: PersonView) -> tuple[Prediction, Recording | DecoderRecording | None]:
    """What a model predicts at inference, and where it has tokens or a decoder, what these attended to."""
    if isinstance(model, TokenPose):
        recording = record_attention(model, view.images)
        return recording.output.prediction, recording
    if isinstance(model, TFPose):
        recording = record_decoder(model, view.images)
        return recording.output.prediction, recording
    with torch.inference_mode():
        return model(view.images).prediction, None


def _gaze(
    recording: Recording, view: PersonView, skeleton: Skeleton, chosen: Sequence[int], label: str, prefix: str = ""
) -> list[Drawing]:
    """What the tokens of single keypoints attend to in the crop."""
    drawings = []
    for k in _looked_at(skeleton, chosen):
        name = skeleton.keypoints[k]
        maps = _by_cycle(recording, [layer.over_patches(k, recording.grid_size) for layer in recording.layers])
        picture = draw_attention(view.shown, maps, f"Where the {name} token of {label} looks")
        file = _file(f"{prefix}attention_{name}")
        whose = " of the teacher" if prefix else ""
        caption = f"attention of the {name} token{whose} to the patches, by layer and cycle"
        drawings.append(Drawing(file, caption, picture))
    return drawings


def _relations(recording: Recording, view: PersonView, model: PoseModel, label: str) -> list[Drawing]:
    """The attention among the keypoint tokens, and which patches are left to attend to."""
    among = _by_cycle(recording, [layer.among_keypoints for layer in recording.layers])
    points = _points(view, model, recording.output.prediction)
    title = f"Attention among the keypoint tokens of {label}"
    matrix = draw_keypoint_attention(among, model.skeleton.keypoints, title)
    links = draw_links(view.shown, points, among.mean(axis=1), model.skeleton, f"{title}, on the person")
    drawings = [
        Drawing("keypoint_attention.png", "attention among the keypoint tokens, by cycle", matrix),
        Drawing("keypoint_links.png", "the strongest of it, as arrows on the person", links),
    ]
    if recording.kept:
        kept = draw_kept(view.shown, recording.kept, recording.grid_size, f"The patches that {label} keeps")
        drawings.append(Drawing("kept_patches.png", "the patches that are kept, layer by layer", kept))
    return drawings


def _looked_at(skeleton: Skeleton, chosen: Sequence[int]) -> list[int]:
    """The keypoints whose own attention is drawn: the nose, or the first, where none are chosen."""
    return list(chosen) or [skeleton.keypoints.index("nose") if "nose" in skeleton.keypoints else 0]


def _file(name: str) -> str:
    return sub(r"[^\w-]", "_", name) + ".png"


def _sampling(
    recording: DecoderRecording, view: PersonView, skeleton: Skeleton, chosen: Sequence[int], label: str
) -> list[Drawing]:
    """Where the queries of single keypoints read the features."""
    drawings = []
    for k in _looked_at(skeleton, chosen):
        name = skeleton.keypoints[k]
        picture = draw_sampling(
            view.shown,
            view.to_shown(recording.samples[:, k]),
            recording.weights[:, k],
            view.to_shown(recording.references[:, k]),
            view.to_shown(recording.points[1:, k]),
            STRIDES,
            f"Where the {name} query of {label} reads the features",
        )
        caption = f"the sampling points of the {name} query and their weights, by decoder layer"
        drawings.append(Drawing(_file(f"sampling_{name}"), caption, picture))
    return drawings


def _refinement(recording: DecoderRecording, view: PersonView, skeleton: Skeleton, label: str) -> list[Drawing]:
    """How the decoder moves its points, and what the queries say to each other."""
    points, among = view.to_shown(recording.points), recording.among_queries
    moves = draw_refinement(view.shown, points, skeleton, f"How {label} moves its points, layer by layer")
    drawings = [Drawing("refinement.png", "the points before the first decoder layer and after each", moves)]
    if among is not None:
        title = f"Attention among the queries of {label}"
        matrix = draw_query_attention(among, skeleton.keypoints, title)
        links = draw_links(view.shown, points[-1], among, skeleton, f"{title}, on the person", part="layer")
        drawings += [
            Drawing("query_attention.png", "attention among the queries, by decoder layer", matrix),
            Drawing("query_links.png", "the strongest of it, as arrows on the person", links),
        ]
    return drawings


def _by_cycle(recording: Recording, arrays: list[np.ndarray]) -> Float[np.ndarray, "cycles layers ..."]:
    stacked = np.stack(arrays)
    return stacked.reshape(recording.cycles, -1, *stacked.shape[1:])


def _points(view: PersonView, model: PoseModel, prediction: Prediction) -> Float[np.ndarray, "K 2"]:
    """The keypoints in pixels of the crop that is drawn upon."""
    return view.to_shown(model.codec.decode(prediction)[0][0].float().cpu().numpy())


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
    fractions = model.config.outputs == "rle"
    rows, columns = (1, 1) if fractions else (side / 4 for side in model.input_size)
    pixels = prediction.sigma.new_tensor([size[1] / columns, size[0] / rows])
    return simulate_heatmaps(prediction.xy, prediction.sigma * pixels, size)[0].cpu().numpy()


def _maps(
    view: PersonView, model: PoseModel, prediction: Prediction, label: str, chosen: Sequence[int]
) -> list[Drawing]:
    maps, (shown, note) = predicted_maps(view, model, prediction), _shown(model.skeleton, chosen)
    name, what = "heatmaps.png", "the heatmap"
    if maps is None:
        name, what = "points.png", "the point"
        maps = np.zeros((len(model.skeleton), *view.shown.shape[:2]))
    elif isinstance(prediction, Coordinates):
        name, what = "distributions.png", "the Gaussian"
    picture = draw_maps(
        view.shown,
        {label: maps[shown]},
        [model.skeleton.keypoints[k] for k in shown],
        f"{what.capitalize()} that {label} predicts for each keypoint",
        points=_points(view, model, prediction)[shown],
        note=f"circle: the keypoint that is read{note}",
    )
    return [Drawing(name, f"{what} that is predicted for each keypoint", picture)]


def _comparison(
    view: PersonView,
    student: tuple[PoseModel, Prediction],
    teacher: tuple[PoseModel, Prediction],
    label: str,
    chosen: Sequence[int],
) -> list[Drawing]:
    if not isinstance(teacher[1], Heatmaps):
        raise LeanposeError(f"The teacher '{teacher[0].name}' predicts no heatmaps; choose one that does.")
    (shown, note), skeleton = _shown(student[0].skeleton, chosen), student[0].skeleton
    lesson, learnt = predicted_maps(view, *teacher), predicted_maps(view, *student)
    assert lesson is not None
    if learnt is None:
        learnt = np.zeros_like(lesson)
    picture = draw_maps(
        view.shown,
        {"teacher": lesson[shown], "student": learnt[shown]},
        [skeleton.keypoints[k] for k in shown],
        f"The teacher's heatmaps and what {label} predicts",
        points=_points(view, *student)[shown],
        note=f"circle: the student's keypoint{note}",
    )
    return [Drawing("teacher_and_student.png", "the teacher's heatmap beside the student's prediction", picture)]


def _shown(skeleton: Skeleton, chosen: Sequence[int]) -> tuple[list[int], str]:
    """The keypoints whose maps are drawn, and a remark where they are not all."""
    if chosen or len(skeleton) <= MOST_MAPS:
        return list(chosen) or list(range(len(skeleton))), ""
    return list(range(MOST_MAPS)), f" · the first {MOST_MAPS} of {len(skeleton)} keypoints"
