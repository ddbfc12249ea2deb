"""The package's front door: light to import, and every public name behind it."""

from __future__ import annotations

import subprocess
import sys

import pytest

import leanpose


def test_importing_loads_nothing_heavy() -> None:
    code = (
        "import sys, leanpose; "
        "print(sorted({'torch', 'timm', 'numpy', 'cv2', 'pydantic', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", leanpose.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(leanpose, name) is not None
    assert name in dir(leanpose)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'creat_model'"):
        _ = leanpose.creat_model  # pyright: ignore[reportAttributeAccessIssue]
