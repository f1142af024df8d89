r"""SRAM and DRAM: what lies where, for how long, and what to say when it does not fit.

A call divides SRAM once: activations that stay, a ring through which weights and cache stream, and
where activations move through DRAM a ring for those and one for results:

$$C \ge \mathrm{peak}_c + R_\mathrm{weights} + R_\mathrm{activations} + R_\mathrm{out} +
  \mathrm{pinned}$$                                                                      (7.5)

Several plans fit; all are timed and the fastest is taken. The set of plans only grows with SRAM and
only shrinks with the number of tokens, which is why more SRAM never slows and more work never gets
faster. Chapter: `docs/13_tiles.md`.
"""

from collections.abc import Iterator
from math import prod
from typing import NamedTuple

from npu_sim.errors import CapacityError
from npu_sim.hardware.chip import Npu
from npu_sim.program.rows import LINEAR, CallTable, ProgramTable
from npu_sim.units import format_bytes

__all__ = ["PIECES_LEAST", "Pins", "Plan", "check_sram", "pin_choices", "plans"]


class Plan(NamedTuple):
    """How one call uses SRAM."""

    piece_bytes: int  # largest transfer
    kept_classes: int  # activations of classes below this stay in SRAM, others move through DRAM
    rows_outer: bool  # for each block of rows all weights, else for each panel of weights all rows
    panel: int  # pieces of weights (of rows) that stay while rows (weights) stream past
    kept_bytes: int  # activations that lie in SRAM
    weight_ring_bytes: int
    activation_ring_bytes: int
    out_ring_bytes: int
    weights_pinned: bool  # weights stay in SRAM from call to call
    cache_pinned: bool

    @property
    def rings(self) -> tuple[int, int, int]:
        """Bytes of the rings of weights, activations and results."""
        return self.weight_ring_bytes, self.activation_ring_bytes, self.out_ring_bytes


PIECE_STEPS = (1, 16)  # pieces of the whole transfer size, and of a sixteenth
# rows outside?, pieces in a panel
ORDERS = ((False, 1), (False, 4), (False, 16), (True, 1), (True, 4), (True, 16))
OUT_PIECES = 2  # a result is written while the next is computed
PIECES_LEAST = 3 + OUT_PIECES  # of the smallest size: three in the ring, two results
ALL_CLASSES = 3

Pins = tuple[int, int]  # bytes of weights, bytes of cache that stay in SRAM between calls


def pin_choices(table: ProgramTable, npu: Npu) -> list[Pins]:
    """What may stay in SRAM between the calls of a request.

    Args:
        table: the request.
        npu: uses sram.keeps_between_calls and its capacity.

    Returns:
        (bytes of weights, bytes of cache) of each choice, (0, 0) always among them.
    """
    weights, cache = table.program.stored_weight_bytes, table.program.stored_kv_bytes
    choices = [(0, 0)]
    if npu.sram.keeps_between_calls:
        wanted = [(weights, 0), (0, cache), (weights, cache)]
        choices += [(w, k) for w, k in wanted if 0 < w + k < npu.sram.capacity_bytes]
    return choices


def plans(call: CallTable, npu: Npu, pins: Pins) -> Iterator[Plan]:
    """Yield the ways to divide SRAM that may work for a call.

    Args:
        call: its peaks of live activations.
        npu: uses sram.capacity_bytes and dma.transfer_bytes.
        pins: bytes that stay from call to call.

    Yields:
        Plans; the schedule may still find that a piece has no room.
    """
    capacity = npu.sram.capacity_bytes - sum(pins)
    fuses = npu.sram.fuses_operations
    # of one row there is nothing to put in order: only the rings of two orders may differ
    one_row = call.rows["m"].max(initial=1, where=call.rows["form"] == LINEAR) == 1
    seen: set[tuple[int, int, int]] = set()
    for kept in (ALL_CLASSES,) if fuses else range(ALL_CLASSES, -1, -1):
        kept_bytes = int(call.peaks[kept])
        rest = capacity - kept_bytes
        if fuses:  # blocks of activations pass through chained operations in half of SRAM
            rest = capacity // 2
            kept_bytes = min(kept_bytes, rest)
        for step in PIECE_STEPS:
            orders = ORDERS[:1] if kept > 1 else ORDERS if step == 1 else ORDERS[-1:]
            piece = max(1, npu.dma.transfer_bytes // step)
            for rows_outer, panel in orders:
                blocks = (1 + panel) if rows_outer else 2
                if one_row and (kept, step, blocks) in seen:
                    continue
                seen.add((kept, step, blocks))
                activations = 0 if kept == ALL_CLASSES else blocks * piece
                out = OUT_PIECES * piece
                ring = rest - activations - out
                if ring >= 3 * piece:
                    yield Plan(
                        piece_bytes=piece, kept_classes=kept, rows_outer=rows_outer, panel=panel,
                        kept_bytes=kept_bytes, weight_ring_bytes=ring,
                        activation_ring_bytes=activations, out_ring_bytes=out,
                        weights_pinned=pins[0] > 0, cache_pinned=pins[1] > 0,
                    )  # fmt: skip


def check_sram(call: CallTable, npu: Npu) -> None:
    """Say why no plan fits a call.

    Args:
        call: for which no plan has worked.
        npu: the NPU.

    Raises:
        CapacityError: always; names the tensor, the bytes over, and what would fit.
    """
    capacity = npu.sram.capacity_bytes
    piece = max(1, npu.dma.transfer_bytes // PIECE_STEPS[-1])
    least = (PIECES_LEAST + 2) * piece
    where = f"the {format_bytes(capacity)} SRAM of {npu.name}"
    if capacity < least:
        raise CapacityError(
            f"sram.capacity_bytes must hold {PIECES_LEAST + 2} pieces of dma.transfer_bytes / "
            f"{PIECE_STEPS[-1]}, together {least} bytes, got {capacity}, {least - capacity} too "
            f"few; take smaller transfers or more SRAM"
        )
    tensor, row_bytes = _largest_row(call)
    raise CapacityError(
        f"{tensor} must fit {where} row by row beside the weights, got {row_bytes} bytes in a row "
        f"where {piece} have room, {max(0, row_bytes - piece)} too much; at least "
        f"{PIECES_LEAST * row_bytes} bytes of SRAM or fewer bits would fit"
    )


def _largest_row(call: CallTable) -> tuple[str, int]:
    """The activation with the most bytes in a row, which cannot be cut further."""
    rows = [
        (tensor.n_bytes // max(1, prod(tensor.shape[:-1])), tensor.name)
        for op in call.ops
        for tensor in (*op.inputs, op.output)
        if tensor.role == "activation"
    ]
    row_bytes, name = max(rows)
    return name, row_bytes
