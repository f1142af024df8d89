"""The parts of an NPU: what each engine and memory is described by; see `chip.py`.

Frozen and keyword-only; the unit is the last word of each name.
"""

from dataclasses import dataclass

from npu_sim.program.precision import precision_name

__all__ = ["Dma", "Dram", "Energy", "MatrixEngine", "Sram", "VectorEngine"]


@dataclass(frozen=True, kw_only=True, slots=True)
class MatrixEngine:
    """Multiplies matrices; its rate depends on the widths of the two operands.

    `dataflow` "blocks" multiplies whole blocks of tile_m x tile_n x tile_k without filling or
    draining between them; "os", "ws" and "is" are systolic arrays of rows x columns cells, which
    fill and drain for every fold (`tile/tiling.py`). A rate of 0: it cannot multiply these widths.
    """

    rows: int  # of the array of multipliers
    columns: int
    dataflow: str  # "blocks", "os", "ws" or "is"
    tile_m: int  # block along rows of the result: tokens
    tile_n: int  # along its columns: features
    tile_k: int  # along the sum
    w4a8_macs_per_cycle: int  # 4-bit weights, unpacked to 8 bits by the vector engine
    w4a16_macs_per_cycle: int
    w8a8_macs_per_cycle: int  # weights and activations of at most 8 bits
    w8a16_macs_per_cycle: int  # weights of at most 8 bits, 16-bit activations
    w16a16_macs_per_cycle: int  # anything wider
    w4a8_efficiency: float  # share of the peak rate that large products reach
    w4a16_efficiency: float
    w8a8_efficiency: float
    w8a16_efficiency: float
    w16a16_efficiency: float
    attention_efficiency: float  # the same for products of two activations: thin sums, many heads
    output_elements_per_s: int  # results of products laid out for the next operation; 0: free

    def macs_per_cycle(self, weight_bits: int, activation_bits: int) -> int:
        """Return the peak rate for a pair of operand widths.

        Args:
            weight_bits: width of the stationary operand: weights, or cached keys and values.
            activation_bits: width of the moving operand.

        Returns:
            Multiply-accumulates per cycle; 0 if it cannot multiply them.
        """
        name = precision_name(weight_bits, activation_bits)
        rate: int = getattr(self, f"{name}_macs_per_cycle")
        return rate

    def efficiency(self, weight_bits: int, activation_bits: int, *, attention: bool) -> float:
        """Return the share of the peak rate that large products reach.

        Args:
            weight_bits: width of the stationary operand.
            activation_bits: width of the moving operand.
            attention: both operands are activations.

        Returns:
            A share in (0, 1].
        """
        if attention:
            return self.attention_efficiency
        share: float = getattr(self, f"{precision_name(weight_bits, activation_bits)}_efficiency")
        return share


@dataclass(frozen=True, kw_only=True, slots=True)
class VectorEngine:
    """Works element by element: sums, products, and functions such as exp."""

    width_bytes: int  # of all vector units together, per cycle: narrower elements, more lanes
    special_function_cycles: float  # one exp, tanh or erf in one lane, against 1 for a sum
    efficiency: float  # share of its lanes that real code keeps busy
    float_efficiency: float  # the same where activations are 16-bit floats
    unpack_elements_per_cycle: int  # 4-bit weights widened to 8 bits


@dataclass(frozen=True, kw_only=True, slots=True)
class Dma:
    """Moves data between DRAM and SRAM."""

    bytes_per_s: int  # effective, sustained: the NPU's own port
    setup_cycles: int  # before the first byte of one transfer
    transfer_bytes: int  # largest transfer the schedule cuts weights into
    cache_bytes_per_s: int  # keys and values laid out as the matrix engine reads them; 0: free
    empty_slot_share: float  # what an empty slot of a padded cache costs, of one with a token
    runs_ahead: bool  # may move what a later operation needs


@dataclass(frozen=True, kw_only=True, slots=True)
class Sram:
    """Memory on the chip that the program manages; Hexagon's is called VTCM."""

    capacity_bytes: int
    keeps_between_calls: bool  # weights and cache may stay from one graph call to the next
    fuses_operations: bool  # operations are cut and chained so that activations never leave SRAM
    streams_encode: bool  # fused and encoding, an operation begins on a part of the one before
    tile_rows: int  # activations of at most so many rows lie there in one tile, worked on whole, by
    # the matrix engine too; 1: as many as there are, of which that engine takes whole blocks
    block_rows: int  # and longer ones in whole blocks of so many


@dataclass(frozen=True, kw_only=True, slots=True)
class Dram:
    """Memory off the chip: weights and the KV cache live here."""

    capacity_bytes: int
    bytes_per_s: int  # peak of the whole chip, shared with its CPU and GPU


@dataclass(frozen=True, kw_only=True, slots=True)
class Energy:
    """What work costs, and what the chip draws while it waits."""

    per_mac_8x8_pj: float  # one multiply-accumulate of two 8-bit operands
    per_mac_8x16_pj: float
    per_mac_16x16_pj: float
    per_vector_operation_pj: float
    per_sram_byte_pj: float
    per_dram_byte_pj: float
    idle_watts: float
