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


def loaded_after(code: str, *packages: str) -> set[str]:
    """Which of the packages a fresh Python has loaded when the code has run."""
    ending = f"print(*({set(packages)!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", f"import sys\n{code}\n{ending}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


def test_predicting_loads_no_more_than_it_uses() -> None:
    code = "from leanpose import PoseEstimator\nimport leanpose.cli.predict\nPoseEstimator(detector='whole-image', backend='torch')"
    assert loaded_after(code, "torch", "timm", "torchvision", "lightning_fabric", "torch._dynamo") == {"torch"}


def test_a_wrong_recipe_is_told_before_anything_heavy_is_loaded() -> None:
    code = (
        "from leanpose.cli import main\nsys.argv = ['leanpose', 'train', 'missing.yaml']\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert end.code == 1"
    )
    assert loaded_after(code, "torch", "lightning_fabric", "pydantic") == {"pydantic"}


@pytest.mark.parametrize("name", leanpose.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(leanpose, name) is not None
    assert name in dir(leanpose)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'creat_model'"):
        _ = leanpose.creat_model  # pyright: ignore[reportAttributeAccessIssue]
