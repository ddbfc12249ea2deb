"""The tools that write a network in int8: onnxruntime's, dynamic and static, and OpenVINO's NNCF.

Each takes an ONNX file in single precision and writes files in which chosen layers stay as they are.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from leanpose.backends.exported import INPUT, KEY, ExportCard
from leanpose.backends.openvino import import_openvino
from leanpose.errors import LeanposeError
from leanpose.quantisation.layers import Layer, find_followers, find_layers

if TYPE_CHECKING:
    from openvino import Model

Scheme = Literal["dynamic", "static", "nncf"]
SCHEMES: tuple[Scheme, ...] = get_args(Scheme)
FORMAT_OF: dict[str, Literal["onnx", "openvino"]] = {"dynamic": "onnx", "static": "onnx", "nncf": "openvino"}
"""The format of the file that a scheme writes."""
ROUGHLY = 16  # people whom NNCF looks at, again for each layer


class Quantiser(ABC):
    """Writes one model with its layers in int8.

    Args:
        source: the model in single precision, an ONNX file that `leanpose.export` wrote.
        inputs: what the file takes, for one person's crop each; they say how large the values between layers become.

    Attributes:
        layers: those that can be quantised.
        suffix: of the files that it writes.

    Raises:
        LeanposeError: a package is missing.
    """

    layers: list[Layer]
    suffix: str

    @abstractmethod
    def write(self, in_float: Collection[str], path: Path, *, roughly: bool = False) -> None:
        """Write a file in which the layers of these names compute in single precision; its card is the source's.

        `roughly` may take less care, to be quicker: good enough to compare layers by.
        """

    @abstractmethod
    def stamp(self, path: Path, card: ExportCard) -> None:
        """Give a written file another card."""


class _OnnxQuantiser(Quantiser):
    kinds: tuple[str, ...]
    suffix = ".onnx"

    def __init__(self, source: Path) -> None:
        import onnx

        self.source, self.model = source, onnx.load(source)
        self.layers = find_layers(self.model, self.kinds)

    def stamp(self, path: Path, card: ExportCard) -> None:
        import onnx

        model = onnx.load(path)
        del model.metadata_props[:]
        model.metadata_props.add(key=KEY, value=card.to_json())
        model.producer_name = "leanpose"
        path.write_bytes(model.SerializeToString())


class DynamicQuantiser(_OnnxQuantiser):
    """onnxruntime's dynamic scheme: weights are stored in int8, the other side is rounded as it comes.

    Matrix products alone: a convolution of this kind is slower in onnxruntime than in single precision.
    """

    kinds = ("MatMul", "Gemm")

    def write(self, in_float: Collection[str], path: Path, *, roughly: bool = False) -> None:
        """See `Quantiser.write`."""
        with silence():
            from onnxruntime.quantization import QuantType, quantize_dynamic

            quantize_dynamic(
                str(self.source),
                str(path),
                op_types_to_quantize=list(self.kinds),
                nodes_to_quantize=[layer.name for layer in self.layers if layer.name not in in_float],
                per_channel=True,
                weight_type=QuantType.QInt8,
            )


class StaticQuantiser(_OnnxQuantiser):
    """onnxruntime's static scheme: pairs of QuantizeLinear and DequantizeLinear, weights with a step for each channel.

    The range of a value is the mean, over the calibration's people, of its least and greatest: rare peaks are cut off, which
    costs less than the coarser steps that they would ask for. What a matrix product gives stays in float, since a norm or a
    sum with the values before follows.
    """

    kinds = ("Conv", "MatMul", "Gemm")

    def __init__(self, source: Path, inputs: Sequence[np.ndarray]) -> None:
        super().__init__(source)
        names = [layer.name for layer in self.layers]
        chosen = {*names, *find_followers(self.model, names)}
        self.kinds_used = sorted({node.op_type for node in self.model.graph.node if node.name in chosen})
        self.ranges = self._calibrate(inputs)

    def _calibrate(self, inputs: Sequence[np.ndarray]) -> Any:
        with silence():
            from onnxruntime.quantization import CalibrationMethod, create_calibrator

            calibrator = create_calibrator(
                str(self.source),
                self.kinds_used,
                augmented_model_path=str(self.source.with_suffix(".calibration.onnx")),
                calibrate_method=CalibrationMethod.MinMax,
                extra_options={"moving_average": True},
            )
            calibrator.collect_data(_reader(inputs))
            return calibrator.compute_data()

    def write(self, in_float: Collection[str], path: Path, *, roughly: bool = False) -> None:
        """See `Quantiser.write`."""
        names = [layer.name for layer in self.layers if layer.name not in in_float]
        with silence():
            import onnx
            from onnxruntime.quantization import QDQQuantizer, QuantType

            quantiser = QDQQuantizer(
                onnx.load(self.source),
                per_channel=True,
                reduce_range=False,
                weight_qType=QuantType.QInt8,
                activation_qType=QuantType.QUInt8,
                tensors_range=self.ranges,
                nodes_to_quantize=[*names, *find_followers(self.model, names)],
                nodes_to_exclude=[],
                op_types_to_quantize=self.kinds_used,
                extra_options={"OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm"]},
            )
            quantiser.quantize_model()
            quantiser.model.save_model_to_file(str(path))


class NncfQuantiser(Quantiser):
    """NNCF's post-training quantisation for OpenVINO, with its corrections of biases."""

    kinds = ("Conv", "ConvTranspose", "MatMul", "Gemm")
    suffix = ".xml"
    # They only hand values on: whether they are quantised is a matter of what comes after them.
    passive = frozenset(
        {"Broadcast", "Concat", "Constant", "Convert", "Gather", "Parameter", "Range", "Reshape", "Result", "ShapeOf"}
        | {"Slice", "Split", "Squeeze", "StridedSlice", "Transpose", "Unsqueeze", "VariadicSplit"}
    )

    def __init__(self, source: Path, inputs: Sequence[np.ndarray], card: ExportCard) -> None:
        openvino = import_openvino()
        self._nncf = _import_nncf()
        import onnx

        self._openvino, self.graph = openvino, onnx.load(source)
        self.layers = find_layers(self.graph, self.kinds)
        # Reading alone leaves biases to be computed from shapes; NNCF would take them for values between layers and round them.
        self.model: Model = openvino.convert_model(source)
        self.model.set_rt_info(card.to_json(), [KEY])
        self.inputs = list(inputs)
        self.attends = any(node.op_type == "Softmax" for node in self.graph.graph.node)
        outputs = {value.name for value in self.graph.graph.output}
        # OpenVINO takes the nodes' names over, but calls what gives an output after it.
        self._alias = {
            node.name: next((name for name in node.output if name in outputs), node.name)
            for node in self.graph.graph.node
        }

    def write(self, in_float: Collection[str], path: Path, *, roughly: bool = False) -> None:
        """See `Quantiser.write`."""
        names = [layer.name for layer in self.layers if layer.name not in in_float]
        chosen = {self._alias[name] for name in (*names, *find_followers(self.graph, names))}
        ignored = [
            operation.get_friendly_name()
            for operation in self.model.get_ops()
            if operation.get_type_name() not in self.passive
            and operation.get_friendly_name().removesuffix("/WithoutBiases") not in chosen
        ]
        nncf = self._nncf
        with silence():
            quantised = nncf.quantize(
                self.model.clone(),
                nncf.Dataset(self.inputs[:ROUGHLY] if roughly else self.inputs),
                subset_size=ROUGHLY if roughly else len(self.inputs),
                model_type=nncf.ModelType.TRANSFORMER if self.attends else None,
                ignored_scope=nncf.IgnoredScope(names=ignored, validate=False),
            )
            self._openvino.save_model(quantised, path, compress_to_fp16=False)

    def write_float(self, path: Path) -> None:
        """Write the model as it was read, in single precision."""
        self._openvino.save_model(self.model, path, compress_to_fp16=False)

    def stamp(self, path: Path, card: ExportCard) -> None:
        """See `Quantiser.stamp`."""
        model = self._openvino.Core().read_model(path)
        model.set_rt_info(card.to_json(), [KEY])
        stamped = path.with_name(f"stamped{path.suffix}")
        self._openvino.save_model(model, stamped, compress_to_fp16=False)
        del model  # it holds the file of weights open
        for suffix in (".bin", ".xml"):
            stamped.with_suffix(suffix).replace(path.with_suffix(suffix))


def open_quantiser(scheme: Scheme, source: Path, inputs: Sequence[np.ndarray], card: ExportCard) -> Quantiser:
    """The tool of a scheme, ready for one model.

    Args:
        scheme: one of `SCHEMES`.
        source: the model in single precision, an ONNX file.
        inputs: to calibrate on: what the file takes, for one crop each.
        card: the source's.

    Raises:
        LeanposeError: a package is missing.
    """
    if scheme == "dynamic":
        return DynamicQuantiser(source)
    if scheme == "static":
        return StaticQuantiser(source, inputs)
    return NncfQuantiser(source, inputs, card)


def require(scheme: Scheme) -> None:
    """See that the packages of a scheme are there, before the work.

    Raises:
        LeanposeError: one is missing.
    """
    if scheme == "nncf":
        import_openvino()
        _import_nncf()
        return
    try:
        with silence():
            import onnx  # noqa: F401
            import onnxruntime.quantization  # noqa: F401
    except ImportError as error:
        raise LeanposeError(
            f"Quantising needs the package {error.name}; `pip install 'leanpose[export]'` brings it."
        ) from error


def _import_nncf() -> ModuleType:
    try:
        with silence():
            import nncf
    except ImportError as error:
        raise LeanposeError(
            "Quantising for OpenVINO needs nncf; `pip install 'leanpose[openvino]'` brings it."
        ) from error
    return nncf


def _reader(inputs: Sequence[np.ndarray]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(inputs)

        def get_next(self) -> dict[str, Any]:
            images = next(self.left, None)
            return None if images is None else {INPUT: images}  # pyright: ignore[reportReturnType]

    return Reader()


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Without the tools' talk and progress bars."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
