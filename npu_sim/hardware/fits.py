"""Whether an NPU can run a program: an engine for each operation and width, room in DRAM.

Checked before anything is priced, at either fidelity. Not here: whether a tensor fits SRAM
(`tile/plan.py`).
"""

from npu_sim.errors import CapacityError, UnsupportedError
from npu_sim.hardware.chip import Npu
from npu_sim.program.precision import PRECISIONS, precision_name
from npu_sim.program.program import Op, Program
from npu_sim.units import format_bytes

__all__ = ["check_capacity", "check_supported"]


def check_supported(program: Program, npu: Npu) -> None:
    """Check that an NPU can run every operation of a program.

    Args:
        program: the request.
        npu: uses unsupported_ops and the rates of the matrix engine; a rate of 0 is none.

    Raises:
        UnsupportedError: an operation or a pair of widths; names the site.
    """
    missing = frozenset(npu.unsupported_ops.split())
    for op in program.ops:
        if op.kind in missing:
            raise UnsupportedError(
                f"{op.site} must be an operation that {npu.name} supports, got {op.kind}; "
                f"run it elsewhere or take another NPU"
            )
        if op.gemm is not None and npu.matrix.macs_per_cycle(*op.operand_bits) == 0:
            raise UnsupportedError(_widths(op, npu))


def _widths(op: Op, npu: Npu) -> str:
    known = [name for name in PRECISIONS if getattr(npu.matrix, f"{name}_macs_per_cycle")]
    hint = "use narrower activations and cached keys" if op.kind == "matmul" else "use other widths"
    return (
        f"{op.site} must multiply widths that {npu.name} supports ({', '.join(known)}), "
        f"got {precision_name(*op.operand_bits)}; {hint}"
    )


def check_capacity(program: Program, npu: Npu) -> None:
    """Check that weights and KV cache fit the DRAM.

    Args:
        program: the request.
        npu: uses dram.capacity_bytes.

    Raises:
        CapacityError: they do not fit; says by how much.
    """
    weights, cache = program.stored_weight_bytes, program.stored_kv_bytes
    over = weights + cache - npu.dram.capacity_bytes
    if over > 0:
        raise CapacityError(
            f"{program.model} must fit the {format_bytes(npu.dram.capacity_bytes)} DRAM of "
            f"{npu.name}, got {format_bytes(weights)} of weights and {format_bytes(cache)} of "
            f"KV cache, {format_bytes(over)} too much; use fewer bits, a shorter request or a "
            f"smaller batch"
        )
