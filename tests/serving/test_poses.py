"""`POST /v1/poses`: the estimator's answers in every format, and one sentence for what cannot be answered."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import supervision
from PIL import Image

from fuzz.http_requests import BOUNDARY, MULTIPART, multipart
from leanpose import PoseEstimator, PoseResult
from leanpose.drawing.files import encode_image
from leanpose.serving import bodies
from leanpose.serving.answers import supervision_arguments
from serving.server import Client, png, running

PHOTOS = sorted((Path(__file__).parents[2] / "src/leanpose/demo/files/free_people/images").glob("*.jpg"))


def small_photo(path: Path) -> bytes:
    with Image.open(path) as image:
        image.thumbnail((256, 256))
        return png(np.asarray(image.convert("RGB")))


@pytest.fixture(scope="module")
def photos() -> list[bytes]:
    """Of one person, of several, and of nobody."""
    return [small_photo(PHOTOS[0]), small_photo(PHOTOS[5]), png(np.zeros((40, 60, 3), np.uint8))]


@pytest.fixture(scope="module")
def estimator() -> PoseEstimator:
    return PoseEstimator("leanpose-body-t", device="cpu", backend="torch")


@pytest.fixture(scope="module")
def client(estimator: PoseEstimator) -> Iterator[Client]:
    with running(
        copy.copy(estimator), "leanpose-body-t", max_body_bytes=1_000_000, max_images=3, max_people=30
    ) as client:
        yield client


@pytest.fixture(scope="module")
def expected(estimator: PoseEstimator, photos: list[bytes]) -> list[PoseResult]:
    return [estimator(photo) for photo in photos]


def as_sent(value: Any) -> Any:
    return json.loads(json.dumps(value))


def test_several_images_have_the_estimators_poses(client: Client, photos: list[bytes], expected: list[PoseResult]):
    answer = client.poses(*photos, name="a.png")
    assert (answer.status, answer.content["model"]) == (200, "leanpose-body-t")
    images = answer.content["images"]
    assert [(image["index"], image["name"], image["people"]) for image in images] == [
        (place, "a.png", len(poses)) for place, poses in enumerate(expected)
    ]
    assert len(expected[0]) >= 1
    assert len(expected[1]) >= 2
    assert len(expected[2]) == 0
    for image, poses in zip(images, expected, strict=True):
        assert image["poses"] == as_sent(poses.to_dict() | {"image": "a.png"})
        assert (image["height"], image["width"]) == poses.image_size


@pytest.mark.parametrize("form", ["coco", "openpose", "supervision"])
def test_other_formats(form: str, client: Client, photos: list[bytes], expected: list[PoseResult]):
    images = client.poses(*photos, query=f"format={form}&keypoint_threshold=0.5").content["images"]
    write = {
        "coco": lambda place, poses: poses.to_coco(place),
        "openpose": lambda place, poses: poses.to_openpose(keypoint_threshold=0.5),
        "supervision": lambda place, poses: supervision_arguments(poses),
    }[form]
    assert [image["poses"] for image in images] == [as_sent(write(*pair)) for pair in enumerate(expected)]


def test_supervision_takes_its_arguments(expected: list[PoseResult]):
    arguments, whole = as_sent(supervision_arguments(expected[1])), expected[1]
    arrays: dict[str, Any] = {name: np.array(values) for name, values in arguments.items() if name != "data"}
    made = supervision.KeyPoints(**arrays, data=arguments["data"])
    assert np.array_equal(np.asarray(made.xy, np.float32), whole.keypoints)
    assert np.array_equal(np.asarray(made.keypoint_confidence, np.float32), whole.keypoint_scores)
    assert list(arguments["data"]) == list(whole.to_supervision().data)
    assert len(made) == len(whole)


def test_json_with_base64_and_a_drawn_image(client: Client, photos: list[bytes], expected: list[PoseResult]):
    text = base64.b64encode(photos[0]).decode()
    answer = client.json("/v1/poses?draw=true", {"images": [text, {"name": "x", "base64": text}]})
    first, second = answer.content["images"]
    assert (first["name"], second["name"]) == (None, "x")
    assert first["poses"]["people"] == second["poses"]["people"] == as_sent(expected[0].to_dict()["people"])
    drawn = base64.b64decode(first["drawn"])
    assert drawn == encode_image(expected[0].draw(), ".jpg")
    with Image.open(BytesIO(drawn)) as image:
        assert image.size == (first["width"], first["height"])


def test_a_threshold_is_the_estimators_and_hidden_people_are_counted(
    client: Client, photos: list[bytes], estimator: PoseEstimator
):
    everybody = copy.copy(estimator)
    everybody.person_threshold = 0.0
    whole = everybody(photos[1])
    threshold = float(np.sort(whole.person_scores)[1])
    everybody.person_threshold = threshold
    image = client.poses(photos[1], query=f"person_threshold={threshold!r}").content["images"][0]
    assert image["poses"]["people"] == as_sent(everybody(photos[1]).to_dict()["people"])
    assert image["left_out"] == {"below_person_threshold": 1, "above_max_people": 0}


def test_of_many_people_the_best_are_given(client: Client, photos: list[bytes], expected: list[PoseResult]):
    image = client.poses(photos[1], query="max_people=1&format=coco").content["images"][0]
    assert [person["score"] for person in image["poses"]] == [round(float(expected[1].person_scores.max()), 5)]
    assert image["left_out"]["above_max_people"] == len(expected[1]) - 1


def test_what_was_guessed_of_an_image_is_said(client: Client):
    buffer = BytesIO()
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("red", "blue")]
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    assert client.poses(buffer.getvalue()).content["images"][0]["notices"] == ["Only the first of 2 frames is read."]


def test_one_broken_image_refuses_the_request_by_its_place_and_name(client: Client, photos: list[bytes]):
    answer = client.poses(photos[0], photos[1][:-200], name="b.png")
    assert (answer.status, list(answer.content)) == (422, ["error"])
    assert "1 ('b.png') is truncated" in answer.content["error"]


def test_an_image_of_too_many_pixels(client: Client, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LEANPOSE_MAX_MEGAPIXELS", "0.001")
    answer = client.poses(png(np.zeros((40, 40, 3), np.uint8)))
    assert answer.status == 413
    assert "0 ('photo.png') has 40 × 40 pixels" in answer.content["error"]


GOOD = base64.b64encode(png(np.zeros((8, 8, 3), np.uint8))).decode()
PART = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="images"'


@pytest.mark.parametrize(
    ("query", "kind", "body", "status", "sentence"),
    [
        ("darw=1", "json", {"images": [GOOD]}, 422, "unknown key 'darw'; did you mean 'draw'?"),
        ("format=cocoa", "json", {"images": [GOOD]}, 422, "Unknown format 'cocoa'; did you mean 'coco'?"),
        ("draw=maybe", "json", {"images": [GOOD]}, 422, "draw = 'maybe'"),
        ("draw=1&draw=0", "json", {"images": [GOOD]}, 422, "gives 'draw' more than once"),
        ("person_threshold=nan", "json", {"images": [GOOD]}, 422, "person_threshold = 'nan'"),
        ("max_people=0", "json", {"images": [GOOD]}, 422, "max_people = '0'"),
        ("", "json", {"images": []}, 422, "holds no images"),
        ("", "json", [1], 422, "a JSON object with a list 'images'"),
        ("", "json", {"image": [GOOD]}, 422, "a JSON object with a list 'images'"),
        ("", "json", {"images": [GOOD], "urls": []}, 422, "Unknown key 'urls'"),
        ("", "json", {"images": [{"url": "http://x"}]}, 422, "Image 0 is neither base64 text"),
        ("", "json", {"images": [{"base64": GOOD, "path": "/etc/passwd"}]}, 422, "unknown key 'path'"),
        ("", "json", {"images": [{"base64": GOOD, "name": 1}]}, 422, "The name of image 0 is not text"),
        ("", "json", {"images": [{"base64": GOOD, "name": "a" * 256}]}, 422, "more than 255 characters"),
        ("", "json", {"images": [GOOD[:-1] + "!"]}, 422, "Image 0 is not in base64"),
        ("", "json", {"images": ["é"]}, 422, "Image 0 is not in base64"),
        ("", "json", {"images": [GOOD] * 4}, 413, "more than the 3 images allowed"),
        ("", "json", {"images": ["A" * 1_000_001]}, 413, "larger than the 1 MB allowed"),
        ("", "json", b'{"images": [NaN]}', 400, "NaN is not a number of JSON"),
        ("", "json", b"[" * 50_000, 400, "nested too deeply"),
        ("", "json", b"\xff\xfe\x00", 400, "is not valid JSON"),
        ("", "text/plain", b"x", 415, "not as 'text/plain'"),
        ("", MULTIPART, multipart([("a", b"x")])[:-9], 400, "its last boundary is missing"),
        ("", MULTIPART, multipart([("a", b"x")], field="image"), 422, "Unknown field 'image'; did you mean 'images'?"),
        ("", MULTIPART, f"{PART}\r\n\r\nx\r\n--{BOUNDARY}--\r\n".encode(), 422, "text instead of a file"),
        ("", MULTIPART, b"nothing of the kind", 400, "multipart body"),
        ("", "multipart/form-data", b"x", 400, "Missing boundary"),
        ("", MULTIPART, multipart([("a", b"x")] * 5), 400, "Too many files"),
    ],
)  # fmt: skip
def test_refusals_are_one_sentence(client: Client, query: str, kind: str, body: Any, status: int, sentence: str):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    kind = "application/json" if kind == "json" else kind
    answer = client.ask("POST", f"/v1/poses?{query}", content, {"Content-Type": kind})
    assert (answer.status, list(answer.content)) == (status, ["error"]), answer.content
    assert sentence in answer.content["error"]


def test_a_compressed_body_is_refused(client: Client):
    answer = client.ask("POST", "/v1/poses", b"x", {"Content-Type": "application/json", "Content-Encoding": "gzip"})
    assert (answer.status, "Content-Encoding" in answer.content["error"]) == (415, True)


def test_a_json_text_of_too_many_lists_is_refused_before_it_is_read(client: Client, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bodies, "MAX_BRACKETS", 5)
    answer = client.ask("POST", "/v1/poses", b"[[],[],[],[],[]]", {"Content-Type": "application/json"})
    assert (answer.status, "more than 5 lists" in answer.content["error"]) == (400, True)


def test_hostile_names_are_only_repeated(client: Client):
    name = "<script>alert(1)</script>/../../etc/passwd\ud800"
    answer = client.json("/v1/poses", {"images": [{"name": name, "base64": GOOD}]})
    assert answer.content["images"][0]["name"] == name
