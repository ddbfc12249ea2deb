"""Crop geometry: mmpose's numbers, and the laws that must hold for any crop."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leanpose import geometry
from leanpose.errors import LeanposeError
from leanpose.geometry import (
    Warp,
    apply_affine,
    bbox_to_center_scale,
    box_area,
    boxes_from_keypoints,
    compose_affine,
    invert_affine,
    warp_image,
    warp_matrix,
    xywh_to_xyxy,
    xyxy_to_xywh,
)

SIZES = {"256x192": (256, 192), "384x288": (384, 288)}

# Positions are compared to 1e-3 pixel: the toolbox stores regions and matrices in float32, at offsets of up to 1e3.
PIXEL = 1e-3

regions = st.tuples(
    st.floats(-500, 3000), st.floats(-500, 3000), st.floats(1, 2000), st.floats(-180, 180), st.booleans(),
    st.sampled_from(["msra", "udp"]), st.sampled_from([(256, 192), (64, 48), (64, 64)]),
)  # fmt: skip


def matrix_of(region: tuple) -> np.ndarray:
    x, y, width, rotation, flip, warp, size = region
    scale = np.array([width, width * size[0] / size[1]])
    return warp_matrix(np.array([x, y]), scale, size, rotation=rotation, flip=flip, warp=warp)


@pytest.fixture(scope="module")
def golden(shared: Path) -> dict[str, np.ndarray]:
    with np.load(shared / "golden/codecs/codecs_mmpose1x.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def golden_029(shared: Path) -> dict[str, np.ndarray]:
    with np.load(shared / "golden/codecs/codecs_sdpose_mmpose029.npz") as file:
        return dict(file)


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("i", [0, 1, 3, 4, 6, 7])
def test_golden_warps(golden: dict[str, np.ndarray], i: int, name: str) -> None:
    size = SIZES[name]
    box, rotation = golden[f"warp/{i}/box_xyxy"], float(golden[f"warp/{i}/rot_degrees"][0])
    (center,), (scale,) = bbox_to_center_scale(box[None], size)
    np.testing.assert_allclose(center, golden[f"warp/{i}/center"], atol=PIXEL)
    np.testing.assert_allclose(scale, golden[f"warp/{i}/{name}.scale_fixed_aspect"], atol=PIXEL)
    classic = warp_matrix(center, scale, size, rotation=rotation)
    udp = warp_matrix(center, scale, size, rotation=rotation, warp="udp")
    # The golden file's shift of (0.1, -0.05) of the region is a move of the centre.
    moved = warp_matrix(center + scale * [0.1, -0.05], scale, size, rotation=rotation)
    for ours, key in (
        (classic, "get_warp_matrix"),
        (invert_affine(classic), "get_warp_matrix_inv"),
        (udp, "get_udp_warp_matrix"),
        (moved, "get_warp_matrix_shift_fixaspect"),
    ):
        np.testing.assert_allclose(ours, golden[f"warp/{i}/{name}.{key}"], atol=PIXEL, err_msg=key)


@pytest.mark.parametrize("keypoint_set", ["A", "B"])
def test_golden_affine_of_the_older_toolbox(golden_029: dict[str, np.ndarray], keypoint_set: str) -> None:
    center = golden_029[f"affine/{keypoint_set}/center0"]
    scale = golden_029[f"affine/{keypoint_set}/scale0"] * 200.0  # mmpose 0.29 measures regions in units of 200 pixels
    for i, rotation in enumerate((0, 20, -45)):
        matrix = warp_matrix(center + i, scale * (1 + 0.1 * i), (256, 192), rotation=rotation)
        key = f"affine/{keypoint_set}/rot{rotation}_inv"
        np.testing.assert_allclose(matrix, golden_029[key + "False"], atol=PIXEL)
        np.testing.assert_allclose(invert_affine(matrix), golden_029[key + "True"], atol=PIXEL)


def opencv4_warp(image: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """OpenCV 4's linear warp: source positions in fixed point, rounded to 1/32 pixel (OpenCV 5 rounds no more)."""
    inverse = invert_affine(matrix)
    x, y = np.meshgrid(np.arange(size[1]), np.arange(size[0]))
    position = [
        (np.rint(row[0] * x * 1024).astype(int) + np.rint((row[1] * y + row[2]) * 1024).astype(int) + 16) >> 5
        for row in inverse
    ]
    left, top = position[0] >> 5, position[1] >> 5
    fx, fy = ((p & 31)[..., None] / 32 for p in position)
    margin = 64
    padded = np.pad(image.astype(float), ((margin, margin), (margin, margin), (0, 0)))

    def at(dx: int, dy: int) -> np.ndarray:
        return padded[top + dy + margin, left + dx + margin]

    return np.floor((at(0, 0) * (1 - fx) + at(1, 0) * fx) * (1 - fy) + (at(0, 1) * (1 - fx) + at(1, 1) * fx) * fy + 0.5)


@pytest.mark.parametrize(("name", "warp"), [("msra", "msra"), ("udp", "udp")])
def test_golden_cropped_image(golden: dict[str, np.ndarray], name: str, warp: Warp) -> None:
    matrix = warp_matrix(np.array([80.0, 60.0]), np.array([90.0, 120.0]), (64, 48), rotation=12, warp=warp)
    keypoints = apply_affine(matrix, golden["topdown_affine/source_keypoints"][0])
    np.testing.assert_allclose(keypoints, golden[f"topdown_affine/{name}/transformed_keypoints"][0], atol=PIXEL)
    image, expected = golden["topdown_affine/source_image"], golden[f"topdown_affine/{name}/img"]
    # The golden crop came from OpenCV 4: with its fixed-point rounding our matrix gives it bit for bit.
    np.testing.assert_array_equal(opencv4_warp(image, matrix, (64, 48)), expected)
    # Without that rounding (OpenCV 5) a position differs by up to 1/64 pixel each way; the image is noise, so a
    # pixel differs from the next by up to 255: at most 2 * 255 / 64 = 8 grey levels, and one of rounding.
    difference = np.abs(warp_image(image, matrix, (64, 48)).astype(int) - expected)
    assert difference.max() <= 9
    assert difference.mean() < 1


@given(regions)
def test_inverse_undoes_the_map(region: tuple) -> None:
    matrix = matrix_of(region)
    points = np.array([[0.0, 0.0], [191.0, 255.0], [-50.0, 20.0]])
    there = apply_affine(invert_affine(matrix), points)
    np.testing.assert_allclose(apply_affine(matrix, there), points, atol=1e-6)


@given(regions)
def test_flip_in_the_matrix_mirrors_the_crop(region: tuple) -> None:
    plain, flipped = matrix_of((*region[:4], False, *region[5:])), matrix_of((*region[:4], True, *region[5:]))
    points = np.array([[3.0, 5.0], [700.0, -2.0]])
    mirrored = apply_affine(plain, points)
    mirrored[:, 0] = region[6][1] - 1 - mirrored[:, 0]
    np.testing.assert_allclose(apply_affine(flipped, points), mirrored, atol=1e-6)


@given(regions)
def test_the_crop_keeps_the_region_in_its_middle(region: tuple) -> None:
    x, y, *_, warp, size = region
    middle = np.array(size[::-1]) / 2 - (0.5 if warp == "udp" else 0)
    if region[4]:
        middle[0] = size[1] - 1 - middle[0]
    np.testing.assert_allclose(apply_affine(matrix_of(region), np.array([[x, y]]))[0], middle, atol=1e-6)


def make_image(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("warp", ["msra", "udp"])
def test_a_flipped_crop_is_the_mirrored_crop(warp: Warp) -> None:
    image, center, scale = make_image(120, 160), np.array([70.3, 55.1]), np.array([60.0, 80.0])
    plain = warp_image(image, warp_matrix(center, scale, (64, 48), rotation=20, warp=warp), (64, 48))
    flipped = warp_image(image, warp_matrix(center, scale, (64, 48), rotation=20, flip=True, warp=warp), (64, 48))
    # Mirroring turns the rounding of a position (1/64 pixel in OpenCV 4) to its other side.
    assert np.abs(flipped[:, ::-1].astype(int) - plain).max() <= 16


def test_a_giant_image_is_warped_in_part() -> None:
    image = make_image(16, 40000)
    center, scale = np.array([39000.0, 8.0]), np.array([12.0, 16.0])
    expected = warp_image(image[:, 38000:], warp_matrix(center - [38000, 0], scale, (64, 48)), (64, 48))
    crop = warp_image(image, warp_matrix(center, scale, (64, 48)), (64, 48))
    # The two matrices differ in their last bits, which may tip a rounding.
    assert np.abs(crop.astype(int) - expected).max() <= 9
    matrix = warp_matrix(np.array([20000, 8]), np.array([40000, 53333]), (64, 48))
    whole = warp_image(np.full((16, 40000, 3), 77, np.uint8), matrix, (64, 48))
    assert (whole[32] == 77).all()
    outside = warp_image(image, warp_matrix(np.array([50000.0, 8.0]), scale, (64, 48)), (64, 48))
    assert not outside.any()


def test_region_of_a_point_is_one_pixel() -> None:
    center, scale = bbox_to_center_scale(np.array([[5.0, 6.0, 5.0, 6.0]]), (256, 192))
    assert center.tolist() == [[5.0, 6.0]]
    np.testing.assert_allclose(scale, [[1.0, 4 / 3]])


def test_regions_of_no_box() -> None:
    center, scale = bbox_to_center_scale(np.zeros((0, 4)), (256, 192))
    assert center.shape == scale.shape == (0, 2)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: bbox_to_center_scale(np.array([[0, 0, np.nan, 1]]), (256, 192)), "not a finite number"),
        (lambda: warp_matrix(np.zeros(2), np.zeros(2), (256, 192)), "above 0"),
        (lambda: warp_matrix(np.zeros(2), np.array([np.nan, 1]), (256, 192)), "above 0"),
        (lambda: invert_affine(np.zeros((2, 3))), "determinant 0"),
    ],
)
def test_bad_input_is_named(call, words: str) -> None:
    with pytest.raises(LeanposeError, match=words):
        call()


def test_boxes() -> None:
    xyxy = np.array([[1.0, 2.0, 4.0, 8.0], [5.0, 5.0, 4.0, 9.0]])
    assert box_area(xyxy).tolist() == [18.0, 0.0]
    np.testing.assert_array_equal(xywh_to_xyxy(xyxy_to_xywh(xyxy)), xyxy)
    keypoints = np.array([[[1, 2, 2], [9, 9, 0], [4, 8, 1]], [[1, 2, 0], [9, 9, 0], [4, 8, 0]]])
    np.testing.assert_array_equal(boxes_from_keypoints(keypoints), [[1, 2, 4, 8], [0, 0, 0, 0]])
    assert boxes_from_keypoints(np.zeros((2, 0, 3))).shape == (2, 4)
    assert geometry.boxes_from_keypoints(np.zeros((0, 17, 3))).shape == (0, 4)


def test_compose_applies_the_inner_map_first() -> None:
    turn = np.array([[0.0, -1, 0], [1, 0, 0]])
    move = np.array([[1.0, 0, 5], [0, 1, 7]])
    points = np.array([[1.0, 2.0]])
    np.testing.assert_allclose(
        apply_affine(compose_affine(turn, move), points), apply_affine(turn, apply_affine(move, points))
    )
