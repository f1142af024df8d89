"""The numbers of a graph: what `OnnxOps` reads and stores, in floats or in integers."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, final

import numpy as np

from mu_ref.errors import WeightsError
from mu_ref.integers.encodings import Encoding
from mu_ref.integers.nonlinear import BIAS_BITS
from mu_ref.integers.store import IntegerModel
from mu_ref.ops.onnx.graph import Graph, Tensor

__all__ = ["FloatParts", "IntegerParts", "Parts"]

KINDS = MappingProxyType({8: np.int8, 16: np.int16})


@final
class FloatParts:
    """Everything is float32.

    Args:
        graph: where constants go.
        weights: {"site.weight" or "site.bias": array}.
    """

    def __init__(self, graph: Graph, weights: Mapping[str, np.ndarray]) -> None:
        self.graph, self.weights = graph, weights

    def table(self, site: str) -> Tensor:
        """`site.weight`, [d_out, d_in], to look up rows."""
        weight = self._weight(f"{site}.weight")
        return Tensor(self.graph.constant(f"{site}.weight", weight), weight.shape)

    def matrix(self, site: str, weight_site: str) -> Tensor:
        """The weight transposed, [d_in, d_out], to multiply with."""
        weight = self._weight(f"{weight_site}.weight")
        return Tensor(_turned(self.graph, site, weight_site, weight), weight.T.shape)

    def bias(self, site: str, x: Tensor, weight_site: str) -> str | None:
        """`site.bias`, if there is one."""
        name = f"{site}.bias"
        return self.graph.constant(name, self._weight(name)) if name in self.weights else None

    def gain(self, site: str, *, plus_one: bool) -> str:
        """`site.weight`, one more where the norm adds it."""
        gain = self._weight(f"{site}.weight")
        return self.graph.constant(f"{site}.weight", gain + np.float32(1) if plus_one else gain)

    def norm_bias(self, site: str) -> str:
        """`site.bias`."""
        return self.graph.constant(f"{site}.bias", self._weight(f"{site}.bias"))

    def read(self, x: Tensor) -> str:
        """The tensor itself."""
        return x.name

    def float_name(self, site: str) -> str:
        """The site."""
        return site

    def stored(self, site: str, shape: tuple[int | str, ...]) -> Tensor:
        """The tensor itself."""
        return Tensor(site, shape)

    def given(self, name: str, shape: tuple[int | str, ...], site: str) -> Tensor:
        """A float32 input."""
        self.graph.inputs[name] = Tensor(name, shape)
        return self.graph.inputs[name]

    def _weight(self, name: str) -> np.ndarray:
        if name not in self.weights:
            raise WeightsError(f"weights must contain {name!r}; they do not")
        return np.asarray(self.weights[name], np.float32)


@final
class IntegerParts:
    """Values are int8 or int16 with the encodings of an integer model, weights int8.

    Args:
        graph: where constants go.
        model: the integer model; its scales, binary64 for activations, become float32.
    """

    def __init__(self, graph: Graph, model: IntegerModel) -> None:
        self.graph, self.model = graph, model
        self._read: dict[tuple[str, str], str] = {}  # {(tensor, home): its real numbers}

    def table(self, site: str) -> Tensor:
        """int8, [d_out, d_in], with a scale for each of d_out."""
        weight = self.model.weight(site)
        name = self.graph.constant(f"{site}.weight", weight)
        return Tensor(self._weight(site, name, 0), weight.shape)

    def matrix(self, site: str, weight_site: str) -> Tensor:
        """int8, transposed, [d_in, d_out], with a scale for each of d_out."""
        weight = self.model.weight(weight_site)
        name = _turned(self.graph, site, weight_site, weight)
        return Tensor(self._weight(weight_site, name, 1), weight.T.shape)

    def bias(self, site: str, x: Tensor, weight_site: str) -> str | None:
        """int32 in steps of the accumulator."""
        bias = self.model.bias(site)
        if bias is None:
            return None
        scale = self.model.weight_scale(weight_site) * _encoding(x).scale
        return self._bias(site, bias, scale)

    def gain(self, site: str, *, plus_one: bool) -> str:
        """int16 with one scale; the file's gains have the 1 in them."""
        name = self.graph.constant(f"{site}.weight", self.model.weight(site))
        scale = self.model.weight_scale(site)[0].astype(np.float32)
        return self._dequantized(name, self.graph.constant(f"{site}.weight_scale", scale))

    def norm_bias(self, site: str) -> str | None:
        """int32 in 2^-8 steps of the output."""
        bias = self.model.bias(site)
        if bias is None:
            return None
        return self._bias(site, bias, self.model.encoding(site).scale * 2.0**-BIAS_BITS)

    def read(self, x: Tensor) -> str:
        """Dequantize a value, once for all that read it under one scale."""
        if (x.name, x.home) not in self._read:
            name = f"{x.name}/dequantize"
            if name in self._read.values():  # `scale` lets the same integers stand for others
                name = f"{x.name}/{x.home}/dequantize"
            reads = [x.name, *self._encoded(x)]
            self._read[x.name, x.home] = self.graph.add("DequantizeLinear", reads, name)
        return self._read[x.name, x.home]

    def float_name(self, site: str) -> str:
        """The integers have the name of the site."""
        return f"{site}/float"

    def stored(self, site: str, shape: tuple[int | str, ...]) -> Tensor:
        """Quantize a result with the site's encoding."""
        x = self._tensor(site, shape, site)
        reads = [self.float_name(site), *self._encoded(x)]
        self.graph.add("QuantizeLinear", reads, f"{site}/quantize", site)
        return x

    def given(self, name: str, shape: tuple[int | str, ...], site: str) -> Tensor:
        """An input of integers."""
        self.graph.inputs[name] = self._tensor(name, shape, site)
        return self.graph.inputs[name]

    def _tensor(self, name: str, shape: tuple[int | str, ...], site: str) -> Tensor:
        encoding = self.model.encoding(site)
        return Tensor(name, shape, KINDS[encoding.bits], encoding, site)

    def _encoded(self, x: Tensor) -> tuple[str, str]:
        encoding = _encoding(x)
        zero_point = np.array(encoding.zero_point, KINDS[encoding.bits])
        return (
            self.graph.constant(f"{x.home}.scale", np.array(encoding.scale, np.float32)),
            self.graph.constant(f"{x.home}.zero_point", zero_point),
        )

    def _weight(self, site: str, name: str, axis: int) -> str:
        scales = f"{site}.weight_scale"
        self.graph.constant(scales, self.model.weight_scale(site).astype(np.float32))
        return self._dequantized(name, scales, axis=axis)

    def _bias(self, site: str, bias: np.ndarray, scale: Any) -> str:
        name = self.graph.constant(f"{site}.bias", bias)
        scale = np.broadcast_to(np.float32(scale), bias.shape)
        return self._dequantized(name, self.graph.constant(f"{site}.bias_scale", scale), axis=0)

    def _dequantized(self, name: str, scales: str, axis: int = 1) -> str:
        label = f"{name}/dequantize"
        if not self.graph.has(label):
            self.graph.add("DequantizeLinear", [name, scales], label, axis=axis)
        return label


def _turned(graph: Graph, site: str, weight_site: str, weight: np.ndarray) -> str:
    """A weight as a matrix to multiply with: stored so, unless it is a table of rows too."""
    if weight_site == site:
        return graph.constant(f"{site}.weight", weight.T)
    table = graph.constant(f"{weight_site}.weight", weight)
    return graph.add("Transpose", [table], f"{site}/transpose", perm=[1, 0])


def _encoding(x: Tensor) -> Encoding:
    assert x.encoding is not None  # every value of `IntegerParts` has one
    return x.encoding


Parts = FloatParts | IntegerParts
