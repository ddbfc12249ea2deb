"""MATLAB files, read with one sentence for whatever is wrong with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from leanpose.errors import LeanposeError


def load_matlab(path: Path, *, structs: bool = False) -> dict[str, Any]:
    """The variables of a MATLAB file (up to version 7.2) by name.

    Args:
        path: the `.mat` file.
        structs: whether structs become objects with attributes, and arrays lose their sides of 1.

    Raises:
        LeanposeError: the file is missing, cut off, or no such file.
    """
    from scipy.io import loadmat

    try:
        return loadmat(path, struct_as_record=not structs, squeeze_me=structs)
    except OSError as error:
        raise LeanposeError(f"Cannot read the annotation file {path}: {error.strerror or error}.") from error
    except Exception as error:  # scipy raises almost anything on a damaged file
        raise LeanposeError(f"The annotation file {path} is cut off or no MATLAB file: {error}.") from error


def matlab_names(path: Path) -> list[str]:
    """The names of a MATLAB file's variables, without reading these.

    Raises:
        LeanposeError: as `load_matlab`.
    """
    from scipy.io import whosmat

    try:
        return [name for name, _, _ in whosmat(path)]
    except OSError as error:
        raise LeanposeError(f"Cannot read the annotation file {path}: {error.strerror or error}.") from error
    except Exception as error:  # as above
        raise LeanposeError(f"The annotation file {path} is cut off or no MATLAB file: {error}.") from error
