"""OpenAPI descriptions of request bodies and answers, which FastAPI cannot derive: leanpose parses bodies itself."""

from __future__ import annotations

from typing import Any

from leanpose.backends.base import ModelSpec
from leanpose.serving.answers import PoseOptions
from leanpose.serving.protocol import INPUT

DESCRIPTION = (
    'Human poses in images. Errors are one sentence: {"error": "…"}. Points are (x, y) in pixels, pixel centres at whole '
    "numbers; boxes are x1, y1, x2, y2; scores lie between 0 and 1."
)

_ERROR: dict[str, Any] = {
    "type": "object",
    "properties": {"error": {"type": "string"}},
    "example": {"error": "The image 1 ('b.jpg') is truncated: its last part is missing."},
}
_STATUSES = {
    "400": "The body is malformed.",
    "401": "The API key is missing or wrong.",
    "408": "The body came too slowly.",
    "413": "More bytes, images, pixels, or crops than allowed.",
    "415": "A kind of body that is not read here.",
    "422": "An unknown option or value, an image that cannot be read, or too many people.",
    "429": "The queue is full; Retry-After says when to come again.",
    "503": "The server stops, or too many large requests are under way.",
    "504": "The request took too long.",
}
_ERRORS: dict[str, Any] = {
    status: {"description": text, "content": {"application/json": {"schema": _ERROR}}}
    for status, text in _STATUSES.items()
}


def _json(description: str, example: Any) -> dict[str, Any]:
    content = {"application/json": {"schema": {"type": "object"}, "example": example}}
    return {"description": description, "content": content}


_PERSON = {
    "id": None,
    "score": 0.83,
    "box": [61.2, 3.4, 402.9, 509.0],
    "box_score": 0.92,
    "keypoints": [[213.4, 96.1, 0.97]],
}
_POSES = {
    "image": "photo.jpg",
    "height": 512,
    "width": 512,
    "skeleton": "body19",
    "keypoint_names": ["nose"],
    "people": [_PERSON],
}
_IMAGE = {
    "index": 0, "name": "photo.jpg", "height": 512, "width": 512, "people": 1,
    "left_out": {"below_person_threshold": 0, "above_max_people": 0}, "notices": [], "poses": _POSES,
}  # fmt: skip


def _parameters() -> list[dict[str, Any]]:
    schema = PoseOptions.model_json_schema()["properties"]
    return [
        {"name": name, "in": "query", "required": False, "description": of.pop("description"), "schema": of}
        for name, of in schema.items()
    ]


PLAIN: dict[str, Any] = {"responses": {"401": _ERRORS["401"]}}
POSES: dict[str, Any] = {
    "parameters": _parameters(),
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["images"],
                    "properties": {"images": {"type": "array", "items": {"type": "string", "format": "binary"}}},
                }
            },
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["images"],
                    "properties": {
                        "images": {
                            "type": "array",
                            "items": {
                                "type": "object",
                                "required": ["base64"],
                                "properties": {"name": {"type": "string"}, "base64": {"type": "string"}},
                            },
                        }
                    },
                },
                "example": {"images": [{"name": "photo.jpg", "base64": "/9j/4AAQSkZJRg=="}]},
            },
        },
    },
    "responses": {
        "200": _json("The people of each image.", {"model": "leanpose-body-s", "format": "json", "images": [_IMAGE]}),
        **_ERRORS,
    },
}


def infer_body(spec: ModelSpec) -> dict[str, Any]:
    """The body and answer of `infer` for a model."""
    points, shape = len(spec.skeleton), [1, *spec.input_size, 3]
    tensor = {"name": INPUT, "shape": shape, "datatype": "UINT8", "data": [0, 0, 0]}
    outputs = [
        {"name": "keypoints", "datatype": "FP32", "shape": [1, points, 2], "data": [0.0]},
        {"name": "scores", "datatype": "FP32", "shape": [1, points], "data": [0.0]},
    ]
    example = {"id": "1", "inputs": [tensor]}
    return {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"type": "object"}, "example": example}},
        },
        "responses": {
            "200": _json("Keypoints in pixels of each crop.", {"model_name": spec.name, "id": "1", "outputs": outputs}),
            **_ERRORS,
            "404": {"description": "There is no such model.", "content": {"application/json": {"schema": _ERROR}}},
        },
    }
