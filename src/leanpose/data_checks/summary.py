"""A check as a dictionary, for scripts."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from leanpose.data_checks.findings import KINDS, CheckedSet, CheckReport


def report_dict(report: CheckReport) -> dict[str, Any]:
    """Everything that a check has found, in what JSON can hold.

    Returns:
        `levels` and `kinds`: how many findings there are of each; `sets`: what was read, with counts, `labelled`,
        `hidden` and (of people labelled twice) `sigma` of each keypoint; `findings`: level, kind, file, text, image and
        person;
        `skipped`: files without keypoints, with the reason; `notes`: sentences on the sets together.
    """
    findings = [
        {
            "level": finding.level,
            "kind": finding.kind,
            "file": str(finding.file),
            "text": finding.text,
            "image": None if finding.image is None else str(finding.image),
            "person": None if finding.person is None else finding.person.number,
        }
        for finding in report.findings
    ]
    kinds = Counter(finding.kind for finding in report.findings)
    return {
        "levels": {level: report.count(level) for level in ("broken", "odd", "suspect")},
        "kinds": {kind: kinds[kind] for kind in KINDS if kind in kinds},
        "sets": [_set_dict(checked) for checked in report.sets],
        "findings": findings,
        "skipped": {str(file): reason for file, reason in report.skipped.items()},
        "notes": report.notes,
    }


def _set_dict(checked: CheckedSet) -> dict[str, Any]:
    names = checked.skeleton.keypoints
    whole = [person.points[:, 2] for person in checked.people if person.points is not None]
    flags = np.stack(whole) if whole else np.zeros((0, len(names)))
    keypoints = {
        name: {"labelled": int((flags[:, k] > 0).sum()), "hidden": int((flags[:, k] == 1).sum())}
        for k, name in enumerate(names)
    }
    spreads = {
        name: {"sigma": round(spread.sigma, 5), "repeats": spread.repeats} for name, spread in checked.spreads.items()
    }
    return {
        "file": str(checked.file),
        "format": checked.format,
        "images": len(checked.images),
        "image_source": None if checked.source is None else str(checked.source),
        "people": len(checked.people),
        "used": None if checked.summary is None else checked.summary.used,
        "skeleton": checked.skeleton.to_dict(),
        "mirror_pairs": [[names[a], names[b]] for a, b in checked.skeleton.pairs],
        "keypoints": {name: counts | spreads.get(name, {}) for name, counts in keypoints.items()},
        "summary": checked.summary_sentences(),
    }
