"""What mkdocs does beside rendering: the same pages are read in the repository, where links lead to files.

Pages come from the code (`docs/reference.py`), from the files at the repository's top, and from the notebooks, which
are shown without being run. Links out of `docs/` become links to the page made of that file, or to the source.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from posixpath import normpath, relpath
from typing import TYPE_CHECKING, Any

from mkdocs.structure.files import File, Files
from pymdownx.slugs import slugify

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
TOP_PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Files at the top of the repository, and the pages that they become."""

FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
NOT_RUN = re.compile(r"^<!-- not run: [^\n]+ -->\n", re.MULTILINE)
LINK = re.compile(r"\]\((?!\w+:|#)([^)\s#]+)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Give headings the anchors that GitHub gives them."""
    config.mdx_configs.setdefault("toc", {})["slugify"] = slugify(case="lower")
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie elsewhere or nowhere."""
    texts = {page: (ROOT / file).read_text() for file, page in TOP_PAGES.items()}
    for notebook in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        texts[f"notebooks/{notebook.stem}.md"] = notebook_page(notebook)
    python = os.environ.get("LEANPOSE_PYTHON", str(ROOT / ".venv" / "bin" / "python"))
    command = [python, str(ROOT / "docs" / "reference.py")]
    texts |= json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    for page, text in texts.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite the links of a page, and take out what the tests alone read."""
    del files
    origin = {made: file for file, made in TOP_PAGES.items()}.get(page.file.src_uri, f"docs/{page.file.src_uri}")

    def rewritten(match: re.Match[str]) -> str:
        return "](" + link_from(
            page.file.src_uri, normpath(f"{Path(origin).parent}/{match[1]}"), config.extra["source"]
        )

    pieces, end = [], 0
    for fence in FENCE.finditer(markdown):
        pieces += [LINK.sub(rewritten, markdown[end : fence.start()]), fence[0]]
        end = fence.end()
    return NOT_RUN.sub("\n", "".join([*pieces, LINK.sub(rewritten, markdown[end:])]))


def link_from(page: str, target: str, source: str) -> str:
    """A link from a page of the site to a file of the repository.

    Args:
        page: its place in the site.
        target: relative to the repository.
        source: address of the repository.
    """
    if target in TOP_PAGES:
        target = f"docs/{TOP_PAGES[target]}"
    if not target.startswith("docs/"):
        return f"{source}/{'tree' if (ROOT / target).is_dir() else 'blob'}/main/{target}"
    if f"{Path(page).with_suffix('.ipynb')}" != target.removeprefix("docs/"):  # a notebook's page offers the notebook
        target = re.sub(r"\.ipynb$", ".md", target)
    return relpath(target.removeprefix("docs/"), str(Path(page).parent))


def notebook_page(path: Path) -> str:
    """A notebook as a page: its texts, and its cells as code."""
    cells: list[dict[str, Any]] = json.loads(path.read_text())["cells"]
    texts = ["".join(cell["source"]) for cell in cells]
    shown = [
        text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```"
        for cell, text in zip(cells, texts, strict=True)
    ]
    return "\n\n".join([*shown[:1], f"[This page as a notebook]({path.name}).", *shown[1:]]) + "\n"
