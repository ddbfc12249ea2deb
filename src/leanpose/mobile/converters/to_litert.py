"""LiteRT, formerly TensorFlow Lite (Google, Apache-2.0): converted by litert-torch from a `torch.export` archive."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from child import Failure, Run, serve  # pyright: ignore[reportMissingImports]

SIGNATURE = "serving_default"


def convert(source: str, target: str, precision: str, outputs: Sequence[str]) -> None:
    """Write `target` (.tflite); its one signature names the input `images`, and the outputs."""
    import litert_torch  # pyright: ignore[reportMissingImports]
    import torch

    # Without in-place operations on constants, such as mean and deviation, which litert-torch stumbles over.
    archive = torch.export.load(source)
    program = archive.run_decompositions({})
    assert archive.example_inputs is not None

    class Named(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.program = program.module()

        def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
            return dict(zip(outputs, self.program(images), strict=True))

    (example,), _ = archive.example_inputs
    converted = litert_torch.signature(SIGNATURE, Named(), sample_kwargs={"images": example}).convert()
    converted.export(target)
    if precision == "fp16":
        _halve(target)


def _halve(path: str) -> None:
    """Store the weights in half precision; LiteRT computes with them in single precision where it has nothing else."""
    from ai_edge_quantizer import qtyping, quantizer  # pyright: ignore[reportMissingImports]
    from ai_edge_quantizer.algorithm_manager import AlgorithmName  # pyright: ignore[reportMissingImports]

    tool = quantizer.Quantizer(path)
    tool.update_quantization_recipe(
        regex=".*",
        operation_name=qtyping.TFLOperationName.ALL_SUPPORTED,
        op_config=qtyping.OpQuantizationConfig(
            weight_tensor_config=qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT),
            compute_precision=qtyping.ComputePrecision.FLOAT,
            explicit_dequantize=True,
        ),
        algorithm_key=AlgorithmName.FLOAT_CASTING,
    )
    tool.quantize().export_model(path, overwrite=True)


def open_file(file: str, precision: str, outputs: Sequence[str], threads: int) -> Run:
    """The network on the CPU."""
    from ai_edge_litert.interpreter import Interpreter  # pyright: ignore[reportMissingImports]

    interpreter = Interpreter(file, num_threads=threads)
    named = interpreter.get_signature_list()[SIGNATURE]["outputs"]
    if sorted(named) != sorted(outputs):
        raise Failure(f"litert-torch named the outputs {', '.join(named)}")
    runner = interpreter.get_signature_runner(SIGNATURE)

    def run(images: np.ndarray) -> list[np.ndarray]:
        found = runner(images=images)
        return [found[name] for name in outputs]

    return run


if __name__ == "__main__":
    serve(("litert-torch", "ai-edge-litert"), convert, open_file)
