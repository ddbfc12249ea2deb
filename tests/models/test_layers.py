"""Resized crops, and multi-scale deformable attention: the numbers and gradients of another library, and what the formula promises."""

from __future__ import annotations

from importlib import import_module

import numpy as np
import pytest
import torch

from leanpose.geometry import Warp, apply_affine, invert_affine, warp_matrix
from leanpose.models.layers import MultiScaleDeformableAttention, resize

SHAPES = [(6, 5), (3, 4), (2, 1)]
FEATURES = sum(rows * columns for rows, columns in SHAPES)


def filled() -> MultiScaleDeformableAttention:
    """With all weights drawn again, so that nothing is 0: queries look up to some features away, beyond the borders too."""
    torch.manual_seed(0)
    attention = MultiScaleDeformableAttention(32, num_heads=4, num_levels=3, num_points=3)
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return attention


def inputs(queries: int, levels: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    query = torch.randn(2, queries, 32, generator=generator)
    reference = torch.rand(2, queries, levels, 2, generator=generator)
    memory = torch.randn(2, FEATURES, 32, generator=generator)
    return [query, reference, memory]


@pytest.mark.parametrize("queries", [1, 17, FEATURES])
@pytest.mark.parametrize("levels", [1, 3])
def test_outputs_and_gradients_are_those_of_transformers(queries: int, levels: int) -> None:
    ours, package = filled(), "transformers.models.deformable_detr"  # heavy, for type checkers too
    independent, configuration = (
        import_module(f"{package}.{part}_deformable_detr") for part in ("modeling", "configuration")
    )
    config = configuration.DeformableDetrConfig(d_model=32, num_feature_levels=3, disable_custom_kernels=True)
    theirs = independent.DeformableDetrMultiscaleDeformableAttention(config, num_heads=4, n_points=3)
    theirs.load_state_dict(ours.state_dict(), strict=True)

    results = []
    for module in (ours, theirs):
        query, reference, memory = (x.clone().requires_grad_() for x in inputs(queries, levels))
        if module is ours:
            read = ours(query, reference, memory, SHAPES)
            weights = ours.sampling_points(query, reference, SHAPES).weights
        else:
            read, weights = theirs(
                query,
                encoder_hidden_states=memory,
                reference_points=reference.expand(-1, -1, 3, -1),
                spatial_shapes=torch.tensor(SHAPES),
                spatial_shapes_list=SHAPES,
            )
        loss = (read * torch.linspace(-1, 1, read.numel()).view_as(read)).sum()
        names, parameters = zip(*module.named_parameters(), strict=True)
        gradients = torch.autograd.grad(loss, [query, reference, memory, *parameters])
        named = dict(zip(["query", "reference", "memory", *names], gradients, strict=True))
        results.append({"output": read, "weights": weights, **named})
    mine, others = results
    assert mine.keys() == others.keys()
    for name, value in mine.items():
        assert value.abs().max() > 0, name
        torch.testing.assert_close(value, others[name], rtol=1e-5, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


def test_it_reads_exactly_where_it_looks() -> None:
    """One head, one point, identity projections: at a feature's centre its value, between two their mean, outside 0."""
    attention = MultiScaleDeformableAttention(2, num_heads=1, num_levels=2, num_points=1)
    with torch.no_grad():
        for layer in (attention.value_proj, attention.output_proj):
            layer.weight.copy_(torch.eye(2))
        attention.sampling_offsets.bias.zero_()
        attention.attention_weights.bias.copy_(torch.tensor([50.0, -50.0]))  # the first level alone
    memory = torch.arange(2 * (3 * 4 + 2)).float().view(1, 14, 2)
    query = torch.zeros(1, 4, 2)
    # Of 3 rows and 4 columns: feature (row 1, column 2); between columns 2 and 3; the same by an offset; far outside.
    reference = torch.tensor([[2.5 / 4, 1.5 / 3], [3 / 4, 1.5 / 3], [1.5 / 4, 1.5 / 3], [1.5, 0.5]]).view(1, 4, 1, 2)
    with torch.no_grad():
        read = attention(query, reference, memory, [(3, 4), (1, 2)])[0]
        torch.testing.assert_close(read[0], memory[0, 6])
        torch.testing.assert_close(read[1], (memory[0, 6] + memory[0, 7]) / 2)
        torch.testing.assert_close(read[3], torch.zeros(2))
        attention.sampling_offsets.bias[:2] = torch.tensor([1.0, 0.0])  # one feature to the right on the first level
        moved = attention(query, reference, memory, [(3, 4), (1, 2)])[0]
    torch.testing.assert_close(moved[2], memory[0, 6])


def test_fresh_weights_look_around_the_reference_on_all_sides() -> None:
    attention = MultiScaleDeformableAttention(32, num_heads=8, num_levels=2, num_points=4)
    samples = attention.sampling_points(torch.randn(1, 1, 32), torch.full((1, 1, 1, 2), 0.5), [(10, 20), (5, 10)])
    steps = (samples.locations[0, 0, :, 0] - 0.5) * torch.tensor([20.0, 10.0])  # in features of the first level
    torch.testing.assert_close(steps[0], torch.tensor([[1.0, 0], [2, 0], [3, 0], [4, 0]]))
    torch.testing.assert_close(steps[3, 0], torch.tensor([-1.0, 1.0]))
    torch.testing.assert_close(samples.locations[0, 0].mean(dim=(0, 1, 2)), torch.tensor([0.5, 0.5]))
    torch.testing.assert_close(samples.weights, torch.full_like(samples.weights, 1 / 8))


def test_it_computes_places_in_full_precision_under_autocast() -> None:
    attention, (query, reference, memory) = filled(), inputs(17, 1)
    exact = attention(query, reference, memory, SHAPES)
    with torch.autocast("cpu", torch.bfloat16):
        rough = attention(query, reference, memory, SHAPES)
        samples = attention.sampling_points(query, reference, SHAPES)
    assert samples.locations.dtype == samples.weights.dtype == torch.float32
    assert rough.dtype == torch.bfloat16
    assert torch.nn.functional.cosine_similarity(rough.float().flatten(), exact.flatten(), dim=0) > 0.999


@pytest.mark.unshaped
def test_it_compiles_in_one_graph() -> None:
    attention, (query, reference, memory) = filled().eval(), inputs(17, 1)
    arguments = (query, reference, memory, SHAPES)
    with torch.inference_mode():
        expected = attention(*arguments)
        compiled = torch.compile(attention, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(*arguments), expected)


@pytest.mark.parametrize("warp", ["udp", "msra"])
@pytest.mark.parametrize(("size", "other"), [((64, 48), (128, 96)), ((128, 96), (64, 48)), ((40, 30), (64, 48))])
def test_a_resized_crop_is_the_crop_of_the_other_size(
    size: tuple[int, int], other: tuple[int, int], warp: Warp
) -> None:
    def crop(size: tuple[int, int]) -> torch.Tensor:
        """Of an image whose pixels say where they are."""
        to_image = invert_affine(warp_matrix(np.array([31.0, 20.0]), np.array([60.0, 80.0]), size, warp=warp))
        pixels = np.stack(np.meshgrid(np.arange(size[1]), np.arange(size[0])), axis=-1).reshape(-1, 2)
        positions = apply_affine(to_image, pixels.astype(np.float64))
        return torch.tensor(positions.reshape(*size, 2), dtype=torch.float32).permute(2, 0, 1)[None]

    found, expected = resize(crop(size), other, warp), crop(other)
    if warp == "msra":  # there the last pixels of a larger crop lie beyond the smaller one's
        found, expected = (x[..., :-1, :-1] for x in (found, expected))
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)
