"""The tools that write a network in int8: onnxruntime's, dynamic and static, and OpenVINO's NNCF.

Each takes an ONNX file in single precision and writes files in which chosen layers stay as they are.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import numpy as np

from leanpose.backends.exported import INPUT, KEY, ExportCard
from leanpose.backends.openvino import import_openvino
from leanpose.errors import LeanposeError
from leanpose.export.program import quiet
from leanpose.quantization.layers import LAYERS, find_followers, find_layers

Scheme = Literal["dynamic", "static", "nncf"]
RANKING_PEOPLE = 16  # that NNCF calibrates on when single layers are compared


class Quantizer(ABC):
    """Writes one model with its layers in int8.

    Args:
        source: the model in single precision, an ONNX file that `leanpose.export` wrote.
        inputs: what the file takes, for one person's crop each; they say how large the values between layers become.
        card: the source's.

    Attributes:
        layers: those that can be quantized.
        kinds: of layers that can be.
        format, suffix: of the files that it writes.
        backend: that runs them.
        packages: that it needs, the tool itself last, and the extra of leanpose that brings them.
        float_path: the model in single precision in the same format.
    """

    kinds: tuple[str, ...]
    format: Literal["onnx", "openvino"] = "onnx"
    suffix = ".onnx"
    backend = "onnxruntime"
    packages: tuple[str, ...] = ("onnx", "onnxruntime.quantization", "onnxruntime")
    extra = "export"

    def __init__(self, source: Path, inputs: Sequence[np.ndarray], card: ExportCard) -> None:
        import onnx

        self.source, self.inputs, self.card, self.model = source, inputs, card, onnx.load(source)
        self.layers, self.float_path = find_layers(self.model, self.kinds), source

    @classmethod
    def require(cls) -> None:
        """Check that the packages are there, before the work.

        Raises:
            LeanposeError: one is missing.
        """
        try:
            with quiet():
                for name in cls.packages:
                    importlib.import_module(name)
        except ImportError as error:
            raise LeanposeError(f"Quantizing needs {error.name}: `pip install 'leanpose[{cls.extra}]'`.") from error

    def names_but(self, in_float: Collection[str]) -> list[str]:
        """The names of all layers but these."""
        return [layer for layer in self.layers if layer not in in_float]

    @abstractmethod
    def write(self, in_float: Collection[str], path: Path, *, roughly: bool = False) -> None:
        """Write a file in which the layers of these names compute in single precision; its card is the source's.

        `roughly` may calibrate on fewer people, to be quicker: good enough to compare layers.
        """

    def stamp(self, path: Path, card: ExportCard) -> None:
        """Give a written file another card."""
        import onnx

        model = onnx.load(path)
        del model.metadata_props[:]
        model.metadata_props.add(key=KEY, value=card.to_json())
        model.producer_name = "leanpose"
        path.write_bytes(model.SerializeToString())


class DynamicQuantizer(Quantizer):
    """onnxruntime's dynamic scheme: weights are stored in int8, activations are quantized at run time.

    Matrix products alone: a convolution of this kind is slower in onnxruntime than in single precision.
    """

    kinds = ("MatMul", "Gemm")

    def write(self, in_float: Collection[str], path: Path, *, roughly: bool = False) -> None:
        """See `Quantizer.write`."""
        with quiet():
            from onnxruntime.quantization import QuantType, quantize_dynamic

            quantize_dynamic(
                str(self.source),
                str(path),
                op_types_to_quantize=list(self.kinds),
                nodes_to_quantize=self.names_but(in_float),
                per_channel=True,
                weight_type=QuantType.QInt8,
            )


class StaticQuantizer(Quantizer):
    """onnxruntime's static scheme: pairs of QuantizeLinear and DequantizeLinear, weights with a step for each channel.

    The range of a value is the mean, over the calibration's people, of its least and greatest: rare peaks are clipped,
    which costs less than the coarser steps that they would ask for. What a matrix product gives stays in float, since a
    norm or a sum with the values before follows.
    """

    kinds = ("Conv", "MatMul", "Gemm")

    def __init__(self, source: Path, inputs: Sequence[np.ndarray], card: ExportCard) -> None:
        super().__init__(source, inputs, card)
        chosen = self._with_followers(())
        self.kinds_used = sorted({node.op_type for node in self.model.graph.node if node.name in chosen})
        with quiet():
            from onnxruntime.quantization import CalibrationMethod, create_calibrator

            calibrator = create_calibrator(
                str(source),
                self.kinds_used,
                augmented_model_path=str(source.with_suffix(".calibration.onnx")),
                calibrate_method=CalibrationMethod.MinMax,
                extra_options={"moving_average": True},
            )
            feeds = ({INPUT: images} for images in inputs)
            # All that is asked of onnxruntime's CalibrationDataReader.
            calibrator.collect_data(SimpleNamespace(get_next=lambda: next(feeds, None)))  # pyright: ignore[reportArgumentType]
            self.ranges = calibrator.compute_data()

    def _with_followers(self, in_float: Collection[str]) -> list[str]:
        names = self.names_but(in_float)
        return [*names, *find_followers(self.model, names)]

    def write(self, in_float: Collection[str], path: Path, *, roughly: bool = False) -> None:
        """See `Quantizer.write`."""
        with quiet():
            import onnx
            from onnxruntime.quantization import QDQQuantizer, QuantType

            quantizer = QDQQuantizer(
                onnx.load(self.source),
                per_channel=True,
                reduce_range=False,
                weight_qType=QuantType.QInt8,
                activation_qType=QuantType.QUInt8,
                tensors_range=self.ranges,
                nodes_to_quantize=self._with_followers(in_float),
                nodes_to_exclude=[],
                op_types_to_quantize=self.kinds_used,
                extra_options={"OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm"]},
            )
            quantizer.quantize_model()
            quantizer.model.save_model_to_file(str(path))


class NncfQuantizer(Quantizer):
    """NNCF's post-training quantization for OpenVINO, with its corrections of biases."""

    kinds = LAYERS
    format, suffix, backend = "openvino", ".xml", "openvino"
    packages, extra = ("openvino", "nncf"), "openvino"
    # They only hand values on: whether they are quantized is a matter of what comes after them.
    passive = frozenset(
        {"Broadcast", "Concat", "Constant", "Convert", "Gather", "Parameter", "Range", "Reshape", "Result", "ShapeOf"}
        | {"Slice", "Split", "Squeeze", "StridedSlice", "Transpose", "Unsqueeze", "VariadicSplit"}
    )

    def __init__(self, source: Path, inputs: Sequence[np.ndarray], card: ExportCard) -> None:
        super().__init__(source, inputs, card)
        # Reading alone leaves biases to be computed from shapes; NNCF would take them for values between layers and
        # round them.
        self.converted = import_openvino().convert_model(source)
        self.converted.set_rt_info(card.to_json(), [KEY])
        nodes, outputs = self.model.graph.node, {value.name for value in self.model.graph.output}
        self.attends = any(node.op_type == "Softmax" for node in nodes)
        # OpenVINO takes the nodes' names over, but calls what gives an output after it.
        self._alias = {node.name: next((name for name in node.output if name in outputs), node.name) for node in nodes}
        self.float_path = source.with_suffix(".xml")
        import_openvino().save_model(self.converted, self.float_path, compress_to_fp16=False)

    def write(self, in_float: Collection[str], path: Path, *, roughly: bool = False) -> None:
        """See `Quantizer.write`."""
        names = self.names_but(in_float)
        chosen = {self._alias[name] for name in (*names, *find_followers(self.model, names))}
        ignored = [
            operation.get_friendly_name()
            for operation in self.converted.get_ops()
            if operation.get_type_name() not in self.passive
            and operation.get_friendly_name().removesuffix("/WithoutBiases") not in chosen
        ]
        inputs = list(self.inputs[:RANKING_PEOPLE] if roughly else self.inputs)
        with quiet():
            import nncf

            quantized = nncf.quantize(
                self.converted.clone(),
                nncf.Dataset(inputs),
                subset_size=len(inputs),
                model_type=nncf.ModelType.TRANSFORMER if self.attends else None,
                ignored_scope=nncf.IgnoredScope(names=ignored, validate=False),
            )
            import_openvino().save_model(quantized, path, compress_to_fp16=False)

    def stamp(self, path: Path, card: ExportCard) -> None:
        """See `Quantizer.stamp`."""
        openvino = import_openvino()
        model = openvino.Core().read_model(path)
        model.set_rt_info(card.to_json(), [KEY])
        stamped = path.with_name(f"stamped{path.suffix}")
        openvino.save_model(model, stamped, compress_to_fp16=False)
        del model  # it holds the file of weights open
        for suffix in (".bin", ".xml"):
            stamped.with_suffix(suffix).replace(path.with_suffix(suffix))


SCHEMES: dict[str, type[Quantizer]] = {"dynamic": DynamicQuantizer, "static": StaticQuantizer, "nncf": NncfQuantizer}
