"""What an NPU is: engines, memories, a clock and overheads; presets with a source for each number.

Every number has a path such as `dma.bytes_per_s`, and `Npu.sources` says for each path where the
number comes from: `public` (a vendor's document), `third party` (somebody's measurement),
`derived` (arithmetic on those) or `assumed`. Nothing here is fitted to a measured latency.
Not here: how an operation uses the engines (`roofline.py`). Chapter: `docs/04_npu.md`; every number
is also in `docs/hardware_sources.md`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, Self

from npu_sim.errors import HardwareError, check_at_least, check_choice
from npu_sim.units import GB, GIB, KIB, MIB, cycles_from_us

__all__ = ["NPUS", "Dma", "Dram", "MatrixEngine", "Npu", "Sram", "VectorEngine", "npu"]

Number = int | float
Sourced = Mapping[str, tuple[Number, str]]  # path -> (value, where it comes from)


@dataclass(frozen=True, kw_only=True, slots=True)
class MatrixEngine:
    """Multiplies matrices; its rate depends on the widths of the two operands."""

    rows: int  # of the array of multipliers
    columns: int
    w8a8_macs_per_cycle: int  # weights and activations of at most 8 bits
    w8a16_macs_per_cycle: int  # weights of at most 8 bits, 16-bit activations
    w16a16_macs_per_cycle: int  # anything wider

    def macs_per_cycle(self, weight_bits: int, activation_bits: int) -> int:
        """Return the peak rate for a pair of operand widths.

        Args:
            weight_bits: width of the stationary operand: weights, or cached keys and values.
            activation_bits: width of the moving operand.

        Returns:
            Multiply-accumulates per cycle.

        Assumes:
            Operands narrower than 8 bits are unpacked to 8 and multiply at the 8-bit rate.
        """
        if weight_bits > 8:
            return self.w16a16_macs_per_cycle
        return self.w8a8_macs_per_cycle if activation_bits <= 8 else self.w8a16_macs_per_cycle


@dataclass(frozen=True, kw_only=True, slots=True)
class VectorEngine:
    """Works element by element: sums, products, and functions such as exp."""

    width_bytes: int  # of all vector units together, per cycle
    special_function_cycles: int  # one exp, tanh or erf in one lane, against 1 for a sum

    def lanes(self, element_bits: int) -> int:
        """Return the elements processed per cycle: narrower elements, more lanes.

        Args:
            element_bits: width of an element; stored in 8, 16 or 32 bits.

        Returns:
            Elements per cycle.
        """
        stored_bytes = 1 if element_bits <= 8 else 2 if element_bits <= 16 else 4
        return max(1, self.width_bytes // stored_bytes)


@dataclass(frozen=True, kw_only=True, slots=True)
class Dma:
    """Moves data between DRAM and SRAM."""

    bytes_per_s: int  # effective, sustained


@dataclass(frozen=True, kw_only=True, slots=True)
class Sram:
    """Memory on the chip that the program manages; Hexagon's is called VTCM."""

    capacity_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Dram:
    """Memory off the chip: weights and the KV cache live here."""

    capacity_bytes: int
    bytes_per_s: int  # peak of the whole chip, shared with its CPU and GPU


@dataclass(frozen=True, kw_only=True, slots=True)
class Npu:
    """A neural processing unit.

    Raises:
        HardwareError: a number is not a whole number or too small.
    """

    name: str
    title: str
    clock_hz: int  # all engines run on one clock
    matrix: MatrixEngine
    vector: VectorEngine
    dma: Dma
    sram: Sram
    dram: Dram
    per_op_overhead_cycles: int  # start and end of one operation
    per_inference_overhead_us: float  # one call of a graph, from the host and back
    sources: Mapping[str, str] = field(compare=False, repr=False)  # path -> source

    def __post_init__(self) -> None:
        """Check every number by its path."""
        for path, value in self.numbers().items():
            if path == "per_inference_overhead_us":
                if not 0 <= value < float("inf"):
                    raise HardwareError(f"{path} must be at least 0, got {value}")
            else:
                least = 0 if path == "per_op_overhead_cycles" else 1
                check_at_least(path, value, least, HardwareError)  # type: ignore[arg-type]

    @property
    def memory_bytes_per_s(self) -> int:
        """Rate at which the NPU can read DRAM: the slower of its DMA and the DRAM itself."""
        return min(self.dma.bytes_per_s, self.dram.bytes_per_s)

    @property
    def per_inference_overhead_cycles(self) -> int:
        """The overhead of one graph call, in cycles."""
        return cycles_from_us(self.per_inference_overhead_us, self.clock_hz)

    @property
    def int8_tops(self) -> float:
        """Peak int8 rate in 10^12 operations per second; one MAC is two operations."""
        return 2 * self.matrix.w8a8_macs_per_cycle * self.clock_hz / 1e12

    def numbers(self) -> dict[str, Number]:
        """List every number by its path, in the order of the fields.

        Returns:
            {"clock_hz": ..., "matrix.rows": ..., ...}.
        """
        found: dict[str, Number] = {}
        for top in fields(self):
            value = getattr(self, top.name)
            if top.name in _PARTS:
                for inner in fields(value):
                    found[f"{top.name}.{inner.name}"] = getattr(value, inner.name)
            elif top.name not in ("name", "title", "sources"):
                found[top.name] = value
        return found

    def with_value(self, path: str, value: Number, source: str = "assumed: a what-if") -> Self:
        """Return the same NPU with one number changed, and its source with it.

        Args:
            path: one of `numbers()`, for example "dma.bytes_per_s".
            value: the new number.
            source: where it comes from.

        Returns:
            The changed NPU.

        Raises:
            HardwareError: no such path, or the value is not allowed.
        """
        numbers = self.numbers()
        check_choice("hardware field", path, numbers, HardwareError)
        sourced = {at: (number, self.sources[at]) for at, number in numbers.items()}
        sourced[path] = (value, source)
        return _build(type(self), self.name, self.title, sourced)


_PARTS: Mapping[str, type] = MappingProxyType(
    {"matrix": MatrixEngine, "vector": VectorEngine, "dma": Dma, "sram": Sram, "dram": Dram}
)


def _build(kind: type[Any], name: str, title: str, sourced: Sourced) -> Any:
    """Put the numbers where their paths say."""
    parts: dict[str, dict[str, Number]] = {part: {} for part in _PARTS}
    top: dict[str, Number] = {}
    for path, (value, _) in sourced.items():
        part, _, name_in_part = path.rpartition(".")
        (parts[part] if part else top)[name_in_part] = value
    engines = {part: _PARTS[part](**numbers) for part, numbers in parts.items()}
    sources = MappingProxyType({path: source for path, (_, source) in sourced.items()})
    return kind(name=name, title=title, **engines, **top, sources=sources)


def _hexagon_x_elite() -> Sourced:
    """Figures of the Hexagon v73; where public ones give a range, its middle."""
    return {
        "clock_hz": (1_373_291_016, "derived: 45 TOPS / (2 x 16,384 MACs per cycle), unconfirmed"),
        "matrix.rows": (128, "assumed: 128 x 128 = 16,384 MACs per cycle"),
        "matrix.columns": (128, "assumed: 128 x 128 = 16,384 MACs per cycle"),
        "matrix.w8a8_macs_per_cycle": (16_384, "derived: 45 TOPS, product brief 87-71417-1"),
        "matrix.w8a16_macs_per_cycle": (8_192, "assumed: half of int8"),
        "matrix.w16a16_macs_per_cycle": (8_192, "assumed: half of int8; on SM8750 fp16 is 0.43"),
        "vector.width_bytes": (512, "public: HVX, 4 contexts x 128 B (press, Qualcomm slides)"),
        "vector.special_function_cycles": (16, "assumed: a polynomial of about 16 instructions"),
        "dma.bytes_per_s": (46 * GB, "third party: DDR to VTCM 37-55 GB/s, SM8550 (v73); middle"),
        "sram.capacity_bytes": (8 * MIB, "public: VTCM, TVM's default for v73; X Elite inferred"),
        "dram.capacity_bytes": (16 * GIB, "assumed: the smallest configuration sold"),
        "dram.bytes_per_s": (135 * GB, "public: LPDDR5x-8448, 8 x 16 bit, the whole chip's"),
        "per_op_overhead_cycles": (2_060, "assumed: 1.5 us, the middle of about 1-2 us"),
        "per_inference_overhead_us": (265, "assumed: the middle of 0.03-0.5 ms (QNN)"),
    }  # fmt: skip


def _teaching_npu() -> Sourced:
    """Numbers for arithmetic by hand."""
    numbers = {
        "clock_hz": 1 * GB, "matrix.rows": 32, "matrix.columns": 32,
        "matrix.w8a8_macs_per_cycle": 1_024, "matrix.w8a16_macs_per_cycle": 512,
        "matrix.w16a16_macs_per_cycle": 256, "vector.width_bytes": 64,
        "vector.special_function_cycles": 10, "dma.bytes_per_s": 10 * GB,
        "sram.capacity_bytes": 512 * KIB, "dram.capacity_bytes": 1 * GIB,
        "dram.bytes_per_s": 20 * GB, "per_op_overhead_cycles": 1_000,
        "per_inference_overhead_us": 100,
    }  # fmt: skip
    source = "assumed: a round number, no such chip exists"
    return {path: (value, source) for path, value in numbers.items()}


_PRESETS = MappingProxyType({
    "hexagon-x-elite": ("Qualcomm Hexagon NPU of Snapdragon X Elite (v73)", _hexagon_x_elite),
    "teaching-npu": ("a chip with round numbers", _teaching_npu),
})  # fmt: skip
NPUS: tuple[str, ...] = tuple(_PRESETS)


def npu(name: str) -> Npu:
    """Return a named NPU.

    Args:
        name: one of `NPUS`.

    Returns:
        The NPU.

    Raises:
        HardwareError: no such preset; the message lists those that exist.
    """
    check_choice("NPU", name, NPUS, HardwareError)
    title, sourced = _PRESETS[name]
    preset: Npu = _build(Npu, name, title, sourced())
    return preset
