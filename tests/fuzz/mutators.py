"""Damage and malice, form by form: each function changes valid content at random, and is a function of its generator's seed.

Structured forms are mostly changed inside their structure, since a random byte hardly ever gets past the parser.
"""

from __future__ import annotations

import copy
import csv
import io
import json
import re
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from random import Random
from typing import Any
from xml.etree import ElementTree

import yaml

Mutator = Callable[[bytes, Random], bytes]

_RAW = "@raw:"
"""What is written without quotation marks: JSON that `json.dumps` does not write."""

HOSTILE: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 0.5, 1e-39, 1e39, -1e39, 1e308, 2**31, 2**53, 2**63, 2**64, -(2**63), 10**40, float("nan"),
    float("inf"), float("-inf"), f"{_RAW}1{'0' * 5000}", f"{_RAW}1e400", "", " ", "0", "1.0", "nan", "1e39", "no", "\0", "a\0b",
    "\ud800", "\udcff", "é" * 3, "\u202e", "\x1b[2J", "a" * 5000, "a/" * 2000, "../../../etc/passwd", "/dev/zero", "/", ".", "..",
    "C:\\x", "file:///etc/passwd", "data:,x", "http://[", "[/x]", "[bold]x", "=1+1", "-", "%s{0}{}", [], {}, [[]], [{}], [None],
    [1], [1, 2], [1, 2, 3], [1, 2, 3, 4], [0] * 51, ["x"] * 4, [1e39] * 51, {"": 0}, {"id": []}, {"a": {"b": {"c": 1}}},
)  # fmt: skip


def change_tree(tree: Any, rng: Random) -> Any:
    """The same tree of lists and mappings with one to four places changed."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        places = list(_places(tree))
        if not places:
            return rng.choice(HOSTILE)
        node, key = _place(places, rng)
        _change(node, key, places, rng)
    return tree


def _place(places: list[tuple[Any, Any]], rng: Random) -> tuple[Any, Any]:
    """One place; those of different names are equally likely, however often the names occur."""
    names = sorted({str(key) if isinstance(node, dict) else "[]" for node, key in places})
    name = rng.choice(names)
    return rng.choice([(node, key) for node, key in places if (str(key) if isinstance(node, dict) else "[]") == name])


def _places(node: Any) -> Any:
    if isinstance(node, dict):
        for key, value in node.items():
            yield node, key
            yield from _places(value)
    elif isinstance(node, list):
        for key, value in enumerate(node):
            yield node, key
            yield from _places(value)


def _change(node: Any, key: Any, places: list[tuple[Any, Any]], rng: Random) -> None:
    kind = rng.randrange(10)
    value = node[key]
    if kind < 5:
        node[key] = copy.deepcopy(rng.choice(HOSTILE))
    elif kind == 5:
        del node[key]
    elif kind == 6:
        other, place = rng.choice(places)
        node[key] = (
            copy.deepcopy(other[place]) if place in (other if isinstance(other, dict) else range(len(other))) else 0
        )
    elif kind == 7 and isinstance(node, list):
        node.extend(copy.deepcopy(node) if rng.random() < 0.3 else [copy.deepcopy(value)])
    elif kind == 8:
        node[key] = rng.choice(([value], {"x": value}, str(value), repr(value)))
    elif isinstance(value, list) and value:
        node[key] = value[: rng.randrange(len(value))]
    elif isinstance(value, int | float) and not isinstance(value, bool):
        node[key] = rng.choice((-value, value * 1e6, value / 1e6, value + 0.5, str(value)))
    elif isinstance(node, dict):
        node[str(rng.choice(HOSTILE))] = node.pop(key)


def change_bytes(data: bytes, rng: Random) -> bytes:
    """Flipped, inserted, removed, repeated and cut bytes."""
    content = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        if not content:
            break
        at, kind = rng.randrange(len(content)), rng.randrange(6)
        if kind == 0:
            content[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            content[at] = rng.choice((0, 255, 127, 128))
        elif kind == 2:
            content[at:at] = rng.randbytes(rng.choice((1, 2, 16)))
        elif kind == 3:
            del content[at : at + rng.choice((1, 4, 64))]
        elif kind == 4:
            content[at:at] = content[at : at + rng.choice((1, 8, 64))] * rng.choice((1, 3))
        else:
            del content[at:]
    return bytes(content)


def json_text(tree: Any) -> bytes:
    """A tree as JSON, with numbers too long for Python's own writer."""
    return re.sub(rf'"{_RAW}([^"]*)"', r"\1", json.dumps(tree)).encode()


def change_json(data: bytes, rng: Random) -> bytes:
    kind = rng.randrange(20)
    if kind == 0:
        return change_bytes(data, rng)
    if kind == 1:
        return rng.choice(
            (b"[" * 200_000, b'{"a":' * 50_000, b"", b"\0", b"null", b"\xef\xbb\xbf" + data, data + data, b"1" * 10_000)
        )
    return json_text(change_tree(json.loads(data), rng))


_YAML = (
    "!!python/object/apply:os.system ['true']", "!!int x", "!!float x", "!!bool x", "!!timestamp x", "!!binary x", "!!set {a, b}",
    "!!null x", "!unknown x", "2001-99-99", "2001-01-01", "1:9:9", "0x", "0o9", "[" * 3000, "{a: " * 3000, "&a [*a]", "*none", "~",
    "'", "<<: 1", "? [a]", "\t", "%TAG", "---\n---", "|", ">\n x", "1" * 5000, "1e400", ".inf", ".nan", "{<<: *a}",
    "&a [x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a]\nc: &c [*b, *b, *b, *b, *b, *b, *b, *b, *b]\n"
    "d: &d [*c, *c, *c, *c, *c, *c, *c, *c, *c]\ne: &e [*d, *d, *d, *d, *d, *d, *d, *d]\nf: [*e, *e, *e, *e, *e, *e, *e, *e, *e]",
)  # fmt: skip


def change_yaml(data: bytes, rng: Random) -> bytes:
    kind = rng.randrange(10)
    if kind == 0:
        return change_bytes(data, rng)
    if kind < 4:
        lines = data.decode().splitlines()
        at = rng.randrange(len(lines))
        key = lines[at].partition(":")[0]
        lines[at] = rng.choice((f"{key}: {rng.choice(_YAML)}", rng.choice(_YAML), f"{rng.choice(_YAML)}: 1"))
        return "\n".join(lines).encode("utf-8", "surrogatepass")
    tree = change_tree(yaml.safe_load(data), rng)
    text = yaml.safe_dump(tree, sort_keys=False, default_flow_style=rng.random() < 0.5)
    return re.sub(rf"['\"]?{_RAW}([^'\"\s,}}\]]*)['\"]?", r"\1", text).encode("utf-8", "surrogatepass")


def _cell(rng: Random) -> str:
    value = str(rng.choice(HOSTILE)).removeprefix(_RAW)
    return value.encode("utf-8", "replace").decode()


def change_csv(data: bytes, rng: Random) -> bytes:
    kind = rng.randrange(8)
    if kind == 0:
        return change_bytes(data, rng)
    rows = list(csv.reader(data.decode().splitlines()))
    for _ in range(rng.choice((1, 2, 4))):
        at = rng.randrange(len(rows))
        row = rows[at]
        if kind < 5 and row:
            row[rng.randrange(len(row))] = _cell(rng)
        elif kind == 5:
            rows.insert(at, list(rows[rng.randrange(len(rows))]))
        elif kind == 6 and row:
            del row[rng.randrange(len(row))]
        elif kind == 7 and len(rows) > 1:
            del rows[at]
    written = io.StringIO()
    csv.writer(written).writerows(rows)
    return written.getvalue().encode("utf-8", "replace")


def change_words(data: bytes, rng: Random) -> bytes:
    """Text of numbers between blanks."""
    if rng.randrange(6) == 0:
        return change_bytes(data, rng)
    words = re.split(r"(\s+)", data.decode())
    for _ in range(rng.choice((1, 2))):
        at = rng.randrange(len(words))
        words[at] = rng.choice((_cell(rng), "", words[at] * 2))
    return "".join(words).encode("utf-8", "replace")


def change_xml(data: bytes, rng: Random) -> bytes:
    kind = rng.randrange(8)
    if kind == 0:
        return change_bytes(data, rng)
    if kind == 1:
        deep = b"<a>" * 30_000
        entities = b'<!DOCTYPE a [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><annotations>&b;</annotations>'
        return rng.choice(
            (deep, entities, b"", b"<annotations/>", data.decode().encode("utf-16"), data.replace(b"=", b"=''"))
        )
    tree = ElementTree.fromstring(data)
    for _ in range(rng.choice((1, 2, 3))):
        elements = list(tree.iter())
        element = rng.choice(elements)
        attributes = list(element.attrib)
        if attributes and kind < 6:
            name = rng.choice(attributes)
            element.attrib[name] = rng.choice((_cell(rng), "1,2;3", ";", "1,2,3", element.attrib[name] * 2))
            if rng.random() < 0.2:
                del element.attrib[name]
        elif kind == 6 and len(element):
            element.append(copy.deepcopy(rng.choice(list(element))))
        elif len(element):
            element.remove(rng.choice(list(element)))
        else:
            element.tag = rng.choice(("points", "box", "image", "track", "label", "parent", "x"))
    text = ElementTree.tostring(tree, encoding="unicode")
    return re.sub("[\0-\x08\x0b-\x1f\ud800-\udfff\ufffe\uffff]", "?" if rng.random() < 0.9 else "\x01", text).encode()


def change_safetensors(data: bytes, rng: Random) -> bytes:
    """The header, or the cards in its metadata; of most the checksum is taken away, or nothing else would ever be looked at."""
    kind = rng.randrange(8)
    length = int.from_bytes(data[:8], "little")
    header, tensors = json.loads(data[8 : 8 + length]), data[8 + length :]
    if kind == 0:
        return change_bytes(data, rng)
    if kind == 1:
        return rng.choice((0, 1, length - 1, 2**63, 2**64 - 1, 10**9)).to_bytes(8, "little") + data[8:]
    if kind == 2:
        header = change_tree(header, rng)
    else:
        cards = header["__metadata__"]
        cards.pop("leanpose_crc32", None)
        name = rng.choice(list(cards))
        cards[name] = (
            change_json(cards[name].encode(), rng).decode("utf-8", "replace") if rng.random() < 0.9 else _cell(rng)
        )
    text = json_text(header)
    return len(text).to_bytes(8, "little") + text + tensors


def change_onnx(data: bytes, rng: Random) -> bytes:
    """Shapes, types, operations, connections, weights outside the file, and the card."""
    if rng.randrange(6) == 0:
        return change_bytes(data, rng)
    import onnx

    model = onnx.load_from_string(data)
    graph = model.graph
    for _ in range(rng.choice((1, 1, 2))):
        kind = rng.randrange(9)
        if kind < 3:
            value = rng.choice([*graph.input, *graph.output])
            sides = value.type.tensor_type.shape.dim
            if sides and kind < 2:
                sides[rng.randrange(len(sides))].dim_value = rng.choice((0, -1, 1, 2, 2**31, 2**62, 100_000))
            elif sides:
                del sides[-1]
            else:
                value.type.tensor_type.elem_type = rng.choice((0, 1, 2, 7, 8, 99))
        elif kind == 3 and graph.initializer:
            weight = rng.choice(graph.initializer)
            weight.data_location = onnx.TensorProto.EXTERNAL
            del weight.external_data[:]
            place = weight.external_data.add()
            place.key, place.value = (
                "location",
                rng.choice(("../outside.bin", "/dev/zero", "/etc/passwd", "none.bin", "", ".")),
            )
        elif kind == 4 and graph.node:
            node = rng.choice(graph.node)
            node.op_type = rng.choice(
                ("Conv", "Nothing", "Loop", "If", "Constant", "ConstantOfShape", "Reshape", "", "Add")
            )
        elif kind == 5 and graph.node:
            del graph.node[rng.randrange(len(graph.node))]
        elif kind == 6 and graph.initializer:
            sides = rng.choice(graph.initializer).dims
            sides[:] = [rng.choice((0, -1, 2**40, 3, 10**9)) for _ in sides] or [5]
        elif kind == 7 and model.metadata_props:
            card = rng.choice(model.metadata_props)
            text = card.value.encode()
            card.value = (change_json(text, rng) if text.startswith(b"{") else _cell(rng).encode()).decode(
                "utf-8", "replace"
            )
        else:
            model.ir_version = rng.choice((0, 3, 9, 99, 2**40))
            if model.opset_import and rng.random() < 0.5:
                model.opset_import[0].version = rng.choice((0, 1, 9, 10**6))
    return model.SerializeToString()


_BOXES = {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"udta", b"dinf"}


def change_mp4(data: bytes, rng: Random) -> bytes:
    """Sizes, names and content of the boxes that the tables of an MP4 file are made of."""
    if rng.randrange(5) == 0:
        return change_bytes(data, rng)
    content = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        boxes = list(_boxes(bytes(content), 0, len(content)))
        if not boxes:
            break
        start, size = rng.choice(boxes)
        kind = rng.randrange(7)
        if kind == 0:
            content[start : start + 4] = struct.pack(
                ">I", rng.choice((0, 1, 7, 8, size - 1, size + 1, 2**31, 2**32 - 1))
            )
        elif kind == 1:
            content[start + 4 : start + 8] = rng.choice((b"free", b"stts", b"stco", b"avcC", b"moov", b"xxxx"))
        elif kind == 2:
            del content[start : start + size]
        elif kind == 3:
            content[start:start] = content[start : start + size]
        elif size >= 12:
            at = start + 8 + rng.randrange(size - 11)
            content[at : at + 4] = struct.pack(">I", rng.choice((0, 1, 255, 65_536, 2**31 - 1, 2**31, 2**32 - 1)))
    return bytes(content)


def _boxes(data: bytes, start: int, end: int) -> Any:
    while start + 8 <= end:
        size, name = struct.unpack(">I4s", data[start : start + 8])
        if size < 8 or start + size > end:
            return
        yield start, size
        if name in _BOXES:
            yield from _boxes(data, start + 8, start + size)
        start += size


def change_zip(data: bytes, rng: Random) -> bytes:
    """Members that are missing, changed or named otherwise, and damage to the archive itself."""
    data = _without_seal(data) if rng.random() < 0.8 else data
    if rng.randrange(3) == 0:
        return change_bytes(data, rng)
    written = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(written, "w") as new, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # two members of one name are meant
        members = old.infolist()
        chosen, kind = rng.choice(members), rng.randrange(5)
        for member in members:
            content, name = old.read(member), member.filename
            if member is chosen:
                if kind == 0:
                    continue
                content = b"" if kind == 1 else change_bytes(content, rng) if kind < 4 else content
                name = rng.choice(("../x", name + "x", "archive/data.pkl")) if kind == 4 else name
            new.writestr(name, content)
    return written.getvalue()


def _without_seal(data: bytes) -> bytes:
    """A zip archive without the comment that holds its checksum."""
    end = data.rfind(b"PK\x05\x06")
    return data[: end + 20] + b"\0\0"


def change_tar(data: bytes, rng: Random) -> bytes:
    """Members with other names, kinds and sizes, and damage to the archive itself."""
    if rng.randrange(2) == 0:
        return change_bytes(data, rng)
    written = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(data)) as old, tarfile.open(fileobj=written, mode="w") as new:
        members = old.getmembers()
        chosen = rng.choice(members)
        for member in members:
            file = old.extractfile(member)
            content = file.read() if file else b""
            if member is chosen:
                kind = rng.randrange(4)
                if kind == 0:
                    member.type, member.linkname, member.size = tarfile.SYMTYPE, "/etc/passwd", 0
                elif kind == 1:
                    member.name = rng.choice(("../x.jpg", "/x.jpg", "a" * 300, "x\n.jpg"))
                elif kind == 2:
                    member.type, member.size = tarfile.FIFOTYPE, 0
                else:
                    content = content[: len(content) // 2]
                    member.size = len(content)
            new.addfile(member, io.BytesIO(content))
    return written.getvalue()
