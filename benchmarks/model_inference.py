"""How much faster is SDPose's inference than that of the papers' code, for the same net and the same result?

    python benchmarks/model_inference.py [--rounds 15] [--model sdpose_s_v1]

The papers' code runs every cycle and throws all but the first away, and writes attention out as softmax(QKᵀ)V. Both
sides here are this library's modules with the same weights, one thread, float32; they take turns in one run, and the
median of the rounds' ratios is printed. Nothing but the two habits differs.
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
from leanpose.models.tokenpose import Attention, Layer, TokenPose


class ExplicitAttention(Attention):
    """The same attention, step by step."""

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        q, k, v = (
            part.reshape(batch, tokens, self.heads, width // self.heads).transpose(1, 2)
            for part in self.qkv(x).chunk(3, dim=-1)
        )
        weights = torch.softmax(torch.einsum("bhid,bhjd->bhij", q, k) * self.scale, dim=-1)
        x = torch.einsum("bhij,bhjd->bhid", weights, v)
        return self.out(x.transpose(1, 2).reshape(batch, tokens, width))


def as_the_papers_code(model: TokenPose) -> TokenPose:
    """A copy of the model whose layers attend explicitly."""
    other = copy.deepcopy(model)
    for layer in other.layers:
        assert isinstance(layer, Layer)
        layer.attention.__class__ = ExplicitAttention
    return other


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="sdpose_s_v1")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = create_model(arguments.model)
    assert isinstance(model, TokenPose)
    papers = as_the_papers_code(model)
    print(f"{arguments.model}, {model.config.cycles} cycles in training, one thread, torch {torch.__version__}")
    with torch.inference_mode():
        for batch in (1, 8):
            images = torch.randn(batch, 3, *model.input_size)
            ours, theirs = model(images), papers.forward_train(images).cycles[0]  # also the warm-up
            torch.testing.assert_close(ours.prediction.maps, theirs.prediction.maps, rtol=1e-4, atol=1e-5)
            rounds = [
                (seconds(lambda x=images: papers.forward_train(x)), seconds(lambda x=images: model(x)))
                for _ in range(arguments.rounds)
            ]
            slow, fast = (statistics.median(column) / batch * 1000 for column in zip(*rounds, strict=True))
            ratio = statistics.median(a / b for a, b in rounds)
            print(f"batch {batch}: {slow:.1f} -> {fast:.1f} ms an image, ratio {ratio:.2f} (target: at least 1.5)")


if __name__ == "__main__":
    main()
