"""What the documentation says is true: its snippets run, its links and names exist, its table of models is counted.

The snippets of a page run in order, in one folder and one process, as a reader would run them: `bash` as commands of
leanpose, `python` in one session, `yaml` is written to the file that its first line names. A `text` block after commands
is what they print, with any number for a number and anything for `…`. A snippet below `<!-- not run: reason -->` is left
out.
"""

from __future__ import annotations

import importlib
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from click import ClickException
from PIL import Image

from clips import write_clip
from leanpose.cli import app
from leanpose.errors import LeanposeError
from leanpose.losses import METHODS
from leanpose.models import registry
from leanpose.models.backbones import BACKBONES
from leanpose.models.registry import list_models, model_table
from leanpose.weights import RELEASED
from tiny import write_tiny_coco

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
PACKAGE = ROOT / "src" / "leanpose"
TEST_FILES = {file.name for file in (ROOT / "tests").rglob("test_*.py")}
FENCE = re.compile(
    r"^(?:<!-- not run: (?P<reason>[^\n]+) -->\n)?```(?P<kind>\w*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL
)
KINDS = {"bash", "python", "yaml", "text"}
SHIPPED = re.compile(r"leanpose-body-s|^leanpose predict (?!.*--model)", re.MULTILINE)


@dataclass(frozen=True)
class Snippet:
    """A fenced block of a page.

    Attributes:
        place: page and line, for messages.
        kind: what stands after the fence.
        body: the lines inside.
        reason: why it is not run; None for the others.
    """

    place: str
    kind: str
    body: str
    reason: str | None


def snippets(page: Path) -> list[Snippet]:
    text = page.read_text()
    return [
        Snippet(
            f"{page.relative_to(ROOT)}:{text.count(chr(10), 0, match.start('body'))}",
            match["kind"],
            match["body"],
            match["reason"],
        )
        for match in FENCE.finditer(text)
    ]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def pages_with_snippets() -> list[Path]:
    return [page for page in PAGES if any(s.reason is None and s.kind != "text" for s in snippets(page))]


def commands(body: str) -> Iterator[list[str]]:
    """The command lines of a block, without comments; a backslash joins lines."""
    for line in body.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words:
            yield words


def run_commands(snippet: Snippet, capture: pytest.CaptureFixture[str]) -> str:
    """Run a block's commands, in this process so that torch is loaded once; returns what they print."""
    printed = ""
    for words in commands(snippet.body):
        assert words[0] == "leanpose", f"{snippet.place}: only commands of leanpose are run, not {words[0]}"
        capture.readouterr()
        try:
            app(words[1:], standalone_mode=False)
        except (LeanposeError, ClickException, SystemExit) as error:
            raise AssertionError(f"{snippet.place}: {' '.join(words)}\n{error}") from error
        printed += "".join(capture.readouterr())
    return printed


def line_pattern(line: str) -> str:
    """A regular expression for a printed line: any number for a number, anything for `…`."""
    pieces = re.split(r"(\d+(?:[.:]\d+)*|…|\s+)", line.strip())
    translated = {"…": ".*", " ": r"\s+"}
    return "".join(
        translated.get(piece[:1], r"\d+(?:[.:]\d+)*" if piece[:1].isdigit() else re.escape(piece)) for piece in pieces
    )


@pytest.fixture
def folder(tmp_path: Path, quick_exports: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """What a reader would bring: a photo, a folder of photos, a video, labelled images, the recipes of a clone."""
    from skimage import data

    astronaut = Image.fromarray(data.astronaut())
    astronaut.save(tmp_path / "photo.jpg")
    (tmp_path / "photos").mkdir()
    astronaut.resize((256, 256)).save(tmp_path / "photos" / "a.jpg")
    astronaut.crop((60, 0, 420, 512)).save(tmp_path / "photos" / "b.png")
    write_clip(tmp_path / "clip.mp4", audio="aac")
    write_tiny_coco(tmp_path / "my_data")
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    list_models()  # so that all of the library's own are entered before the copy
    monkeypatch.setattr(
        registry, "_ENTRIES", dict(registry._ENTRIES)
    )  # a page registers a model and a method; later tests do not see them
    methods = dict(METHODS)
    yield tmp_path
    METHODS.clear()
    METHODS.update(methods)


@pytest.mark.parametrize("page", pages_with_snippets(), ids=name_of)
def test_snippets_run(page: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    session = {"__name__": "snippet"}
    printed: str | None = None
    for snippet in snippets(page):
        if snippet.reason is not None or (not RELEASED and SHIPPED.search(snippet.body)):
            printed = None
        elif snippet.kind == "bash":
            printed = run_commands(snippet, capsys)
        elif snippet.kind == "python":
            exec(compile(snippet.body, snippet.place, "exec", dont_inherit=True), session)
        elif snippet.kind == "yaml":
            name = re.match(r"# (\S+\.yaml)\n", snippet.body)
            assert name is not None, f"{snippet.place}: the first line of a YAML block names its file"
            (folder / name[1]).write_text(snippet.body)
        elif printed is not None:
            for line in snippet.body.splitlines():
                assert re.search(line_pattern(line), printed), f"{snippet.place}: '{line}' is not in\n{printed}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_has_a_known_kind(page: Path) -> None:
    found = snippets(page)
    assert 2 * len(found) == sum(line.startswith("```") for line in page.read_text().splitlines())
    for snippet in found:
        assert snippet.kind in KINDS, f"{snippet.place}: a block of kind '{snippet.kind}'"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_lines_are_short(page: Path) -> None:
    long = [number for number, line in enumerate(page.read_text().splitlines(), start=1) if len(line) > 120]
    assert not long, f"{name_of(page)}: lines of more than 120 characters: {long}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", FENCE.sub("", page.read_text())):
        if "://" in target:
            continue
        file, _, heading = target.partition("#")
        path = (page.parent / file).resolve() if file else page
        assert path.exists(), f"{name_of(page)} links to {target}"
        if heading:
            titles = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
            assert heading in slugs, f"{name_of(page)} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_names_in_the_text_are_in_the_code(page: Path) -> None:
    text = FENCE.sub("", page.read_text())
    for path in re.findall(r"`((?:src|tests|recipes|docs|benchmarks)/[\w./-]+)`", text):
        placeholder = any(
            part.split(".")[0].isupper() and not (ROOT / part).exists() for part in path.split("/") if part
        )
        assert placeholder or (ROOT / path).exists(), f"{name_of(page)} names {path}"
    for path in re.findall(r"`((?!src|tests|recipes|docs|benchmarks)[\w/]+\.py)`", text):
        stem = path.rsplit("/", 1)[-1].removesuffix(".py")
        assert stem.isupper() or (PACKAGE / path).exists() or path in TEST_FILES, f"{name_of(page)} names {path}"
    for file, row in re.findall(r"`(recipes/[\w/]+\.yaml) row=(\w+)`", text):
        assert row in yaml.safe_load((ROOT / file).read_text())["rows"], f"{name_of(page)} names row {row} of {file}"
    for dotted in re.findall(r"`(leanpose(?:\.\w+)+)[`(]", text):
        assert resolve(dotted) is not None, f"{name_of(page)} names {dotted}"


def resolve(dotted: str) -> object:
    """The module or the thing in a module that a dotted name stands for."""
    parts = dotted.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for name in parts[cut:]:
            found = getattr(found, name)
        return found
    raise AssertionError(dotted)


def test_the_table_of_models_is_the_generated_one() -> None:
    lines = (ROOT / "docs" / "models.md").read_text().splitlines()
    rows = lines[lines.index("| name | parameters M | GMACs | with attention | published AP | source of AP |") + 2 :]
    for line, (name, row) in zip(rows, model_table().items(), strict=False):
        counts = (row.parameters / 1e6, row.macs / 1e9, (row.macs + row.attention_macs) / 1e9)
        cells = [f"`{name}`", *(f"{count:.2f}" for count in counts), row.published, row.source]
        assert [cell.strip() for cell in line.strip("|").split("|")] == cells
    assert rows[len(model_table())] == ""


def test_the_table_of_backbones_names_all() -> None:
    text = (ROOT / "docs" / "models.md").read_text()
    named = re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`[^|]+) \| [^|]+ \| [^|]+ \|$", text, re.MULTILINE)))
    assert sorted(named) == sorted(BACKBONES)


def test_the_table_of_label_files_names_tests() -> None:
    text = (ROOT / "docs" / "data.md").read_text()
    rows = re.findall(r"^\|.*\| ([a-z0-9_]+_[a-z0-9_]+) \|$", text, re.MULTILINE)
    files = [*(ROOT / "tests" / "data").glob("test_*.py"), ROOT / "tests" / "backends" / "test_foreign.py"]
    tests = "".join(file.read_text() for file in files)
    assert len(rows) > 50
    assert [name for name in rows if f"def test_{name}(" not in tests] == []
