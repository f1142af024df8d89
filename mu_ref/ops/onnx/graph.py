"""A graph of ONNX nodes while it is being built, and the file that it becomes.

The package `onnx` is imported when a graph is turned into a file, and nowhere else.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mu_ref.border.files import written_whole
from mu_ref.errors import InputError
from mu_ref.integers.encodings import Encoding

__all__ = ["IR_VERSION", "OPSET", "Graph", "Node", "Tensor", "check_installed", "made_here"]

OPSET = 23  # the first with RMSNormalization and RotaryEmbedding; 16-bit Q/DQ came with 21
PRODUCER = "mu-ref"  # a graph says so
IR_VERSION = 11  # that of opset 23
INLINE_BYTES = 1_900_000_000  # protobuf cannot hold 2 GiB: beyond, constants lie in a file beside


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor of a graph: what `OnnxOps` computes with."""

    name: str
    shape: tuple[int | str, ...]  # a name stands for a size that is known when the graph is run
    dtype: type = np.float32
    encoding: Encoding | None = None  # of integers that stand for real numbers
    home: str = ""  # site whose `.scale` and `.zero_point` the integers have


@dataclass(frozen=True, slots=True)
class Node:
    """One operator of ONNX, in an order in which it can be computed."""

    kind: str
    name: str
    reads: tuple[str, ...]
    makes: tuple[str, ...]
    attributes: dict[str, Any]


@dataclass(slots=True)
class Graph:
    """Nodes in order, constants by name, and what goes in and comes out."""

    name: str
    nodes: list[Node] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    inputs: dict[str, Tensor] = field(default_factory=dict)
    outputs: dict[str, Tensor] = field(default_factory=dict)

    def take(self, name: str, shape: tuple[int | str, ...], dtype: type = np.float32) -> Tensor:
        """Make an input of plain numbers: token ids, a mask, cosines."""
        self.inputs[name] = Tensor(name, shape, dtype)
        return self.inputs[name]

    def add(
        self,
        kind: str,
        reads: Sequence[str],
        name: str,
        makes: str | tuple[str, ...] = (),
        **attributes: Any,
    ) -> str:
        """Add a node; return the name of its (last) tensor, the node's own by default."""
        made = (makes,) if isinstance(makes, str) else makes or (name,)
        self.nodes.append(Node(kind, name, tuple(reads), made, attributes))
        return made[-1]

    def constant(self, name: str, array: np.ndarray) -> str:
        """Add a constant, unless it is there; return its name."""
        self.constants.setdefault(name, np.ascontiguousarray(array).reshape(array.shape))
        return name

    def has(self, tensor: str) -> bool:
        """Is there a node that computes this tensor?"""
        return any(tensor in node.makes for node in self.nodes)

    def save(self, path: Path, notes: Mapping[str, str]) -> int:
        """Write the graph, checked by `onnx.checker`; constants of 2 GB and more go beside it.

        Args:
            path: an .onnx file; appears whole or not at all.
            notes: texts for the metadata, which also gets the encodings of inputs and outputs.

        Returns:
            Bytes that were written.

        Raises:
            InputError: the package `onnx` is not installed.
        """
        onnx = _imported()
        large = sum(array.nbytes for array in self.constants.values()) > INLINE_BYTES
        beside = path.with_name(f"{path.name}.data")
        model = self._proto(onnx, notes, beside.name if large else None)
        if not large:  # the checker would look for the other file
            onnx.checker.check_model(model, full_check=True)
        else:
            with written_whole(beside) as part, part.open("wb") as out:
                for array in filter(_is_large, self.constants.values()):
                    out.write(_little(array).tobytes())
        with written_whole(path) as part:
            part.write_bytes(model.SerializeToString(deterministic=True))
        return path.stat().st_size + (beside.stat().st_size if large else 0)

    def _proto(self, onnx: Any, notes: Mapping[str, str], beside: str | None) -> Any:
        helper = onnx.helper
        nodes = [
            helper.make_node(n.kind, n.reads, n.makes, n.name, **n.attributes) for n in self.nodes
        ]
        offset, constants = 0, []
        for name, array in self.constants.items():
            constants.append(_constant(onnx, name, array, beside, offset))
            offset += array.nbytes if _is_large(array) else 0
        graph = helper.make_graph(
            nodes, self.name, _described(onnx, self.inputs), _described(onnx, self.outputs),
            constants,
        )  # fmt: skip
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION,
            producer_name=PRODUCER,
        )  # fmt: skip
        meant = {n: x.encoding for n, x in {**self.inputs, **self.outputs}.items() if x.encoding}
        described = {name: asdict(encoding) for name, encoding in meant.items()}
        helper.set_model_props(model, {**notes, "encodings": json.dumps(described)})
        return model


def check_installed() -> None:
    """Refuse, before any work, to write a graph without the package `onnx`."""
    _imported()


def made_here(path: Path) -> bool:
    """Say whether a file is a graph that this package has written."""
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        made_by: str = _imported().load_model(path, load_external_data=False).producer_name
    except DecodeError:
        return False
    return made_by == PRODUCER


def _imported() -> Any:
    try:
        import onnx
    except ImportError as error:
        raise InputError(
            "an ONNX file must have the package onnx to be written, it is not installed; "
            "pip install 'mu-ref[onnx]'"
        ) from error
    return onnx


def _described(onnx: Any, tensors: Mapping[str, Tensor]) -> list[Any]:
    helper = onnx.helper
    return [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(np.dtype(x.dtype)), x.shape
        )
        for name, x in tensors.items()
    ]


def _constant(onnx: Any, name: str, array: np.ndarray, beside: str | None, offset: int) -> Any:
    tensor = onnx.TensorProto(name=name, dims=array.shape)
    tensor.data_type = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
    if beside is None or not _is_large(array):
        tensor.raw_data = _little(array).tobytes()
        return tensor
    tensor.data_location = onnx.TensorProto.EXTERNAL
    where = {"location": beside, "offset": offset, "length": array.nbytes}
    for key, value in where.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def _is_large(array: np.ndarray) -> bool:
    """May it lie beside the graph? Shapes must be in it, so that sizes can be inferred."""
    return array.nbytes >= 1024


def _little(array: np.ndarray) -> np.ndarray:
    return array.astype(array.dtype.newbyteorder("<"), copy=False)
