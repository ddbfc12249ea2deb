"""Addresses on the hub, and one sentence for each way in which it gives no weights."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import constants

import leanpose
from hub_server import StandInHub
from leanpose.cli.export import fresh_model
from leanpose.distillation.plan import _student_values
from leanpose.errors import LeanposeError
from leanpose.training.recipe import parse_recipe
from leanpose.training.sources import card_with_sources
from leanpose.weights import RELEASED, describe, load_model
from leanpose.weights.hub import FILE, HubAddress, download, is_hub_address
from tiny import tiny_recipe

RELEASE = RELEASED["leanpose-body-t"].path.read_bytes()


@pytest.mark.parametrize(
    ("text", "repository", "revision"),
    [
        ("me/pose", "me/pose", None),
        ("hf://me/pose", "me/pose", None),
        ("hf://me/pose-v1.0@refs/pr/1", "me/pose-v1.0", "refs/pr/1"),
        (str(Path("hf://me/pose@v1")), "me/pose", "v1"),
    ],
)
def test_an_address_names_a_repository_and_a_revision(text: str, repository: str, revision: str | None) -> None:
    assert HubAddress.parse(text) == HubAddress(repository, revision)
    assert HubAddress.parse(str(HubAddress.parse(text))) == HubAddress(repository, revision)


@pytest.mark.parametrize(
    "text", ["hf://pose", "hf://me/pose/model.safetensors", "hf://me/pose@", "hf:///pose", "hf://"]
)
def test_what_is_no_address_is_one_sentence(text: str) -> None:
    assert is_hub_address(text)
    with pytest.raises(LeanposeError, match=r"is not a hub address: hf://USER/NAME or hf://USER/NAME@REVISION\."):
        load_model(text)


def test_a_revision_is_pinned_and_the_newest_is_the_default(hub: StandInHub) -> None:
    first = hub.commit("me/pose", {FILE: RELEASE, "config.json": b"{", "pytorch_model.bin": pickle.dumps(print)})
    second = hub.commit("me/pose", {FILE: RELEASED["leanpose-body-movenet"].path.read_bytes()})
    assert describe(f"hf://me/pose@{first}")["model"] == "tinypose"
    assert describe("hf://me/pose")["model"] == describe(f"hf://me/pose@{second}")["model"] == "movenet_topdown"
    assert {request.rpartition("/")[2] for request in hub.requests if "resolve" in request} == {FILE}


def test_what_was_downloaded_is_there_without_a_network(hub: StandInHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.commit("me/pose", {FILE: RELEASE})
    cached = download(HubAddress("me/pose"))
    hub.broken = True
    assert download(HubAddress("me/pose")) == cached
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.requests.clear()
    assert download(HubAddress("me/pose")) == cached
    assert hub.requests == []


def test_a_cache_that_cannot_be_written_is_no_matter_of_the_network(hub: StandInHub, tmp_path: Path) -> None:
    hub.commit("me/pose", {FILE: RELEASE})
    (tmp_path / "file").write_text("")
    with pytest.raises(LeanposeError, match=r"Cannot write \S*file\S*: (Not a directory|File exists)\.$"):
        download(HubAddress("me/pose"), cache_dir=tmp_path / "file")


def test_recipes_and_commands_take_an_address_for_a_model(hub: StandInHub, tmp_path: Path) -> None:
    hub.commit("me/pose", {FILE: RELEASE})
    hub.commit("me/net", {FILE: RELEASED["leanpose-body-movenet"].path.read_bytes()})
    name, teacher = "hf://me/pose@main", "hf://me/net"
    assert fresh_model(name) is None
    assert _student_values(name, [])["init_from"] == name
    recipe = parse_recipe(
        tiny_recipe(tmp_path, init_from=name, distillation={"method": "fpd", "teacher": teacher})
        | {"card": {"training_data": ["mine"], "licence": "mine"}}
    )
    said = card_with_sources(recipe, [])
    assert f"LSP (start {name})" in said.training_data
    assert f"; teacher {teacher}: research use only" in said.licence


def gated(hub: StandInHub, _: pytest.MonkeyPatch) -> None:
    hub.gated.add("me/pose")


def hidden(hub: StandInHub, _: pytest.MonkeyPatch) -> None:
    hub.hidden.add("me/pose")


def broken(hub: StandInHub, _: pytest.MonkeyPatch) -> None:
    hub.broken = True


def offline(_: StandInHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def unreachable(_: StandInHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:9/{repo_id}/{revision}/{filename}")


def nothing(*_: object) -> None:
    pass


@pytest.mark.parametrize(
    ("happens", "name", "sentence"),
    [
        (gated, "me/pose", r"is gated: accept its terms on http://\S+/me/pose"),
        (hidden, "me/pose", r"has no repository 'me/pose', or hides it from this account; `hf auth login` logs in\."),
        (broken, "me/pose", r"hf://me/pose is not in the cache, and http://\S+ answers with status 500 about me/pose\."),
        (offline, "me/pose", r"hf://me/pose is not in the cache, and HF_HUB_OFFLINE forbids requests to http://\S+ about me/pose\."),
        (unreachable, "me/pose", r"hf://me/pose is not in the cache, and http://127\.0\.0\.1:9 cannot be reached: "),
        (nothing, "you/pose", r"has no repository 'you/pose'"),
        (nothing, "me/pose@v9", r"'me/pose' has no revision 'v9'\."),
        (nothing, "me/po--se", r"'me/po--se' cannot be a repository of the hub: "),
        (nothing, "me/torch", r"has no model\.safetensors \(it contains only pytorch_model\.bin, a/b\.bin\); .* `leanpose convert`\."),
        (nothing, "me/many", r"contains only 0\.onnx, 1\.onnx, 2\.onnx, 3\.onnx, 4\.onnx and 2 more\);"),
        (nothing, "me/other", r"is a safetensors file of another program: it has no leanpose card\."),
        (nothing, "me/tampered", r"is corrupt: its weights do not match their checksum \(SHA-256\)\."),
    ],
)  # fmt: skip
def test_what_gives_no_weights_is_one_sentence(
    hub: StandInHub,
    monkeypatch: pytest.MonkeyPatch,
    happens: Callable[[StandInHub, pytest.MonkeyPatch], None],
    name: str,
    sentence: str,
) -> None:
    changed = bytearray(RELEASE)
    changed[-1] ^= 1
    files = {
        "pose": {FILE: RELEASE},
        "torch": {"pytorch_model.bin": pickle.dumps(print), "a/b.bin": b""},
        "many": {f"{number}.onnx": b"" for number in range(7)},
        "other": {FILE: b"\x02\0\0\0\0\0\0\0{}"},
        "tampered": {FILE: bytes(changed)},
    }
    for repository, content in files.items():
        hub.commit(f"me/{repository}", content)
    happens(hub, monkeypatch)
    with pytest.raises(LeanposeError, match=sentence) as error:
        leanpose.create_model(f"hf://{name}")
    assert "\n" not in str(error.value)
