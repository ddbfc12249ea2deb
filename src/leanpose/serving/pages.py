"""The two pages of a server, whole in themselves: nothing is loaded from another host."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

FILES = Path(__file__).parent / "files"


@cache
def _file(name: str) -> str:
    return (FILES / name).read_text(encoding="utf-8")


def _source(text: str) -> str:
    """The source expression of an inline script or style in a content security policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


HTML_HEADERS: Mapping[str, str] = {
    # Runs and shows what the page itself holds, and talks to this server alone.
    "Content-Security-Policy": (
        f"default-src 'none'; script-src {_source(_file('drop.js'))}; style-src {_source(_file('style.css'))}; "
        "img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
}


def drop_page(model: str, *, needs_key: bool) -> str:
    """The page to drop photos on.

    Args:
        model: the name of the server's.
        needs_key: show a field for the API key.
    """
    values = {
        "{{style}}": _file("style.css"),
        "{{model}}": escape(model),
        "{{key_hidden}}": "" if needs_key else " hidden",
        "{{script}}": _file("drop.js"),
    }
    page = _file("drop.html")
    for place, value in values.items():
        page = page.replace(place, value)
    return page


def docs_page(description: Mapping[str, Any]) -> str:
    """An OpenAPI description to read, with an example of each endpoint.

    Args:
        description: as `/openapi.json` has it.
    """
    parts = [f"<h1>{escape(description['info']['title'])} {escape(description['info']['version'])}</h1>"]
    parts.append(f"<p>{escape(description['info']['description'])}</p>")
    parts.append('<p>For programs: <a href="openapi.json">openapi.json</a></p>')
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            parts += _operation(path, method.upper(), operation)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,"><title>leanpose: HTTP</title>'
        f"<style>{_file('style.css')}</style></head><body><main>{''.join(parts)}</main></body></html>"
    )


def _operation(path: str, method: str, operation: Mapping[str, Any]) -> list[str]:
    parts = [f"<h2><code>{method} {escape(path)}</code></h2>", f"<p>{escape(operation.get('summary', ''))}</p>"]
    body = operation.get("requestBody", {}).get("content", {})
    parts.append(f"<pre>{escape(_curl(path, method, body))}</pre>")
    parameters = [
        (p["name"], p["in"], json.dumps(p["schema"].get("default")), p.get("description", ""))
        for p in operation.get("parameters", [])
    ]
    if parameters:
        parts.append(_table(("option", "in", "default", "what it does"), parameters))
    for kind, content in body.items():
        if "example" in content:
            parts.append(f"<p>Body ({escape(kind)}):</p><pre>{escape(json.dumps(content['example'], indent=1))}</pre>")
    answers = operation.get("responses", {})
    for content in answers.get("200", {}).get("content", {}).values():
        if "example" in content:
            parts.append(f"<p>Answer:</p><pre>{escape(json.dumps(content['example'], indent=1))}</pre>")
    errors = [(status, answer["description"]) for status, answer in answers.items() if status != "200"]
    return [*parts, _table(("status", "when"), errors)] if errors else parts


def _curl(path: str, method: str, body: Mapping[str, Any]) -> str:
    address = f"http://127.0.0.1:8000{path}"
    if "multipart/form-data" in body:
        return f"curl -F images=@photo.jpg {address}"
    return f"curl --json @request.json {address}" if method == "POST" else f"curl {address}"


def _table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heads)
    lines = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>'
