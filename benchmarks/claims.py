"""Do the README and docs/models.md still say the truth? Recomputes their figures and fails where one has drifted.

    python benchmarks/claims.py                   # all that can be computed here, within a quarter of an hour of CPU
    python benchmarks/claims.py --list            # what is claimed where, and what would be computed
    python benchmarks/claims.py --only "file|AP"  # those whose name fits this pattern

A claim is a figure at a place that a pattern finds, a computation, and a tolerance. A pattern that finds nothing fails, too:
the sentence has changed, and so must this file. AP needs `coco_mini` in the folder named by `LEANPOSE_SHARED`; without it
those claims are skipped and counted. Published figures of papers and what was trained for hours are not recomputed here.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from leanpose.data.images import read_image
from leanpose.data.readers import DatasetConfig
from leanpose.data.sets import resolve
from leanpose.demo import run_demo
from leanpose.evaluation.report import evaluation_report
from leanpose.inference.detectors import Detector
from leanpose.models.cost import Cost, model_cost
from leanpose.models.registry import list_models
from leanpose.weights import RELEASED, load_model

ROOT = Path(__file__).parents[1]
README, MODELS = "README.md", "docs/models.md"
DATA = Path(os.environ.get("LEANPOSE_SHARED", ROOT / "shared")) / "data" / "coco_mini"
LABELS = DATA / "annotations" / "person_keypoints_val.json"


@dataclass(frozen=True)
class Claim:
    """A figure that a page states.

    Attributes:
        name: of the claim, for messages and `--only`.
        page: relative to the repository.
        pattern: finds the figure in the page, as its one group.
        compute: gives the figure anew, in the page's unit.
        tolerance: the largest difference that is no drift.
        factor: it is a time instead: by how much it may differ, up or down.
        needs: a file or folder without which it is skipped.
    """

    name: str
    page: str
    pattern: str
    compute: Callable[[], float]
    tolerance: float = 0.0
    factor: float | None = None
    needs: Path | None = None

    def stated(self) -> float:
        """The figure as the page has it.

        Raises:
            LookupError: the pattern finds it nowhere, or with several values.
        """
        found = set(re.findall(self.pattern, (ROOT / self.page).read_text()))
        if len(found) != 1:
            raise LookupError(f"{self.name}: {self.page} has {len(found)} figures at '{self.pattern}'")
        return float(WORDS.get(figure := found.pop(), figure))

    def holds(self, stated: float, computed: float) -> bool:
        """Whether the difference is no drift, rounding of floating-point numbers apart."""
        if self.factor is not None:
            return stated / self.factor <= computed <= stated * self.factor
        return abs(computed - stated) <= self.tolerance + 1e-9


WORDS = {"five": "5"}


# What is computed


@cache
def cost(name: str, **options: object) -> Cost:
    """The cost of a model, counted once."""
    return model_cost(name, **options)


@cache
def released_cost(name: str) -> Cost:
    """That of a released model, at its own size and with its own keypoints."""
    card = RELEASED[name].card
    return model_cost(card["model"], skeleton=card["skeleton"]["name"], **card["config"])


@cache
def ap(name: str) -> float:
    """AP of a released model in labelled boxes, one pass without flip test, in percent."""
    source = DatasetConfig(format="coco", images=DATA / "images", annotations=LABELS)
    return 100 * evaluation_report(load_model(name), resolve(source, Path()), flip_test=False).metrics["AP"]


@cache
def detector_ap() -> float:
    """Box AP of the package's person detector, as COCO counts it."""
    from faster_coco_eval import COCO, COCOeval_faster  # takes a moment

    labels = COCO(str(LABELS))
    detector = Detector.load("auto", threshold=0.001, device="cpu")
    rows = []
    for image in labels.dataset["images"]:
        (found,) = detector([read_image(DATA / "images" / image["file_name"])])
        for box, score in zip(*found[:2], strict=True):
            x1, y1, x2, y2 = map(float, box)
            rows.append(
                {"image_id": image["id"], "category_id": 1, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": float(score)}
            )
    evaluation = COCOeval_faster(labels, labels.loadRes(rows), "bbox")
    evaluation.run()
    return float(evaluation.stats[0])


def demo_minutes() -> float:
    """How long `make demo` takes once everything is installed."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        run_demo(Path(folder) / "demo")
    return (time.monotonic() - began) / 60


# What is claimed


def claims() -> Iterator[Claim]:
    """All claims, the quick ones first; lambdas bind what the loop changes."""
    for name in list_models():
        row = rf"\| `{name}` \|"
        number = r" [\d.]+ \|"
        for column, figure in enumerate((parameters_m, gmacs, gmacs_with_attention)):
            title = figure.__name__.replace("_", " ")
            pattern = row + number * column + r" ([\d.]+) \|"
            yield Claim(f"{title} of {name}", MODELS, pattern, lambda f=figure, n=name: f(cost(n)), 0.005)
    for name, release in RELEASED.items():
        row = rf"\| `{name}` \|"
        size, keypoints = release.card["config"]["input_size"], release.card["skeleton"]["keypoints"]
        yield Claim(f"keypoints of {name}", MODELS, row + r" (\d+) \|", lambda k=keypoints: float(len(k)))
        yield Claim(f"height of {name}", MODELS, row + r" \d+ \| (\d+)×\d+ \|", lambda s=size: float(s[0]))
        yield Claim(f"width of {name}", MODELS, row + r" \d+ \| \d+×(\d+) \|", lambda s=size: float(s[1]))
        sizes = r" \d+ \| \d+×\d+ \|"
        pattern = row + sizes + r" ([\d.]+) \|"
        yield Claim(f"parameters m of {name}", MODELS, pattern, lambda n=name: parameters_m(released_cost(n)), 0.05)
        megabytes = release.path.stat().st_size / 1e6
        yield Claim(f"file of {name}", MODELS, row + sizes + r" [\d.]+ \| ([\d.]+) \|", lambda m=megabytes: m, 0.05)
    for name, pattern in {
        "leanpose-body-s": r"head top; ([\d.]+) GMACs",
        "leanpose-body-t": r"`leanpose-body-t` \(([\d.]+)\s+GMACs\)",
    }.items():
        yield Claim(f"gmacs of {name}", MODELS, pattern, lambda n=name: gmacs(released_cost(n)), 0.005)
    for name, pattern in {
        "leanpose-body-s": r"9,059 people; ([\d.]+) and [\d.]+ AP without flip test",
        "leanpose-body-t": r"9,059 people; [\d.]+ and ([\d.]+) AP without flip test",
        "leanpose-body-movenet": r"MoveNet Lightning's backbone: ([\d.]+) AP",
        "leanpose-body-tokenpose": r"from scratch on those people \(([\d.]+) AP\)",
    }.items():
        yield Claim(f"AP of {name}", MODELS, pattern, lambda n=name: ap(n), 0.15, needs=LABELS)
    yield Claim(
        "AP of the person detector", README, r"\(([\d.]+) box AP", lambda: 100 * detector_ap(), 0.2, needs=LABELS
    )
    yield Claim("minutes of make demo", README, r"takes about (\w+) minutes on two CPU cores", demo_minutes, factor=2.0)


def parameters_m(of: Cost) -> float:
    """Millions of parameters."""
    return of.parameters / 1e6


def gmacs(of: Cost) -> float:
    """Billions of multiply-accumulates without the products of attention, as papers count."""
    return of.macs / 1e9


def gmacs_with_attention(of: Cost) -> float:
    """The same with these products."""
    return (of.macs + of.attention_macs) / 1e9


def check(all_claims: Iterator[Claim]) -> int:
    """Compute claims and print how each fares; returns how many have drifted."""
    held = drifted = skipped = 0
    for claim in all_claims:
        if claim.needs is not None and not claim.needs.exists():
            skipped += 1
            print(f"skipped  {claim.name}: {claim.needs} is not here")
            continue
        try:
            stated = claim.stated()
        except LookupError as error:
            drifted += 1
            print(f"DRIFT    {error}")
            continue
        computed = claim.compute()
        if claim.holds(stated, computed):
            held += 1
            print(f"holds    {claim.name}: {stated:g} ({computed:.4g}), {claim.page}")
        else:
            drifted += 1
            print(f"DRIFT    {claim.name}: {claim.page} says {stated:g}, computed {computed:.4g}")
    print(f"{held} claims hold, {drifted} have drifted, {skipped} were skipped.")
    return drifted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="compute nothing")
    parser.add_argument("--only", default="", help="claims whose name fits this pattern")
    arguments = parser.parse_args()
    chosen = [claim for claim in claims() if re.search(arguments.only, claim.name)]
    if arguments.list:
        for claim in chosen:
            print(f"{claim.page}: {claim.name} {claim.stated():g}")
        return
    if not chosen:
        sys.exit(f"No claim fits '{arguments.only}'; --list shows all.")
    sys.exit(1 if check(iter(chosen)) else 0)


if __name__ == "__main__":
    main()
