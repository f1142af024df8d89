"""What an NPU cannot run: operations without an engine, widths that it does not multiply."""

from npu_sim.engines import precision_name
from npu_sim.errors import UnsupportedError
from npu_sim.hardware import Npu
from npu_sim.program import Op, Program

__all__ = ["check_supported"]


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
    names = ("w4a8", "w4a16", "w8a8", "w8a16", "w16a16")
    known = [name for name in names if getattr(npu.matrix, f"{name}_macs_per_cycle")]
    hint = "use narrower activations and cached keys" if op.kind == "matmul" else "use other widths"
    return (
        f"{op.site} must multiply widths that {npu.name} supports ({', '.join(known)}), "
        f"got {precision_name(*op.operand_bits)}; {hint}"
    )
