"""How much faster is inference here than that of the papers' code, and with pruned tokens than without?

    python benchmarks/model_inference.py [--rounds 15] [--model sdpose_s_v1] [--pruned ppt_s] [--unpruned tokenpose_s_v1]

The code of SDPose runs every cycle and throws all but the first away, and writes attention out as softmax(QKᵀ)V: the first
comparison, with the same result. The second is PPT's: the same weights with and without its pruning. All sides are this
library's modules, one thread, float32; the two of a comparison take turns in one run, and the median of the rounds'
ratios is printed.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from leanpose import create_model
from leanpose.codecs.base import Heatmaps
from leanpose.models.layers import Attention, TransformerLayer
from leanpose.models.tokenpose import TokenPose


class ExplicitAttention(Attention):
    """The same attention, step by step."""

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        q, k, v = (
            part.reshape(batch, tokens, self.num_heads, width // self.num_heads).transpose(1, 2)
            for part in self.qkv(x).chunk(3, dim=-1)
        )
        weights = torch.softmax(torch.einsum("bhid,bhjd->bhij", q, k) * self.scale, dim=-1)
        x = torch.einsum("bhij,bhjd->bhid", weights, v)
        return self.out(x.transpose(1, 2).reshape(batch, tokens, width))


def as_the_papers_code(model: TokenPose) -> TokenPose:
    """A copy of the model whose layers attend explicitly."""
    other = copy.deepcopy(model)
    for layer in other.layers:
        assert isinstance(layer, TransformerLayer)
        layer.attention.__class__ = ExplicitAttention
    return other


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def compare(slow: Callable[[Tensor], object], fast: Callable[[Tensor], object], images: Tensor, rounds: int) -> str:
    """Both take turns; says what an image takes in each, and the ratio."""
    for run in (slow, fast):
        run(images)  # the warm-up
    times = [(seconds(lambda: slow(images)), seconds(lambda: fast(images))) for _ in range(rounds)]
    before, after = (statistics.median(column) / len(images) * 1000 for column in zip(*times, strict=True))
    ratio = statistics.median(a / b for a, b in times)
    return f"batch {len(images)}: {before:.1f} -> {after:.1f} ms an image, ratio {ratio:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="sdpose_s_v1")
    parser.add_argument("--pruned", default="ppt_s")
    parser.add_argument("--unpruned", default="tokenpose_s_v1", help="the same network without pruning")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, pruned, unpruned = map(create_model, (arguments.model, arguments.pruned, arguments.unpruned))
    assert isinstance(model, TokenPose)
    papers = as_the_papers_code(model)
    pruned.load_state_dict(unpruned.state_dict())
    print(f"one thread, torch {torch.__version__}")
    with torch.inference_mode():
        print(f"{arguments.model}, {model.config.cycles} cycles in training, as the papers' code and as here:")
        for batch in (1, 8):
            images = torch.randn(batch, 3, *model.input_size)
            ours, theirs = model(images), papers.forward_train(images).cycles[0]
            pred, expected = ours.prediction, theirs.prediction
            assert isinstance(pred, Heatmaps)
            assert isinstance(expected, Heatmaps)
            torch.testing.assert_close(pred.heatmaps, expected.heatmaps, rtol=1e-4, atol=1e-5)
            print(" ", compare(papers.forward_train, model, images, arguments.rounds), "(target: at least 1.5)")
        print(f"{arguments.unpruned} and {arguments.pruned}:")
        for batch in (1, 8):
            images = torch.randn(batch, 3, *pruned.input_size)
            print(" ", compare(unpruned, pruned, images, arguments.rounds))


if __name__ == "__main__":
    main()
