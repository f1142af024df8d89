"""What is known of a model and a request before any time is: sizes, and the work of one token.

Also for a model that does not fit: `misfit_json` stands where a report would. Chapter:
`docs/11_machine.md`.
"""

from typing import Any

from npu_sim.errors import NpuSimError
from npu_sim.hardware.chip import Npu
from npu_sim.program.call import call_program
from npu_sim.program.counts import macs_per_token
from npu_sim.program.description import Description
from npu_sim.program.experts import expected_experts
from npu_sim.program.precision import Precision
from npu_sim.program.program import Program

__all__ = ["misfit_json", "model_facts"]


def model_facts(description: Description, precision: Precision, batch: int = 1) -> dict[str, Any]:
    """Count a model, and what one token of it costs.

    Args:
        description: the model.
        precision: stored widths.
        batch: rows of a decode step, which may choose several experts.

    Returns:
        `n_parameters`, each once; `macs_per_token`, see there;
        `weight_bytes_per_token`, packed and without scales, that the same token reads; of a
        mixture of experts `experts`: how many are `stored`, `per_token`, and `expected_per_step`.
    """
    stacks = description.model.stacks
    if "decoder" in stacks:
        token = call_program(description, "decode", 1, 1, int("encoder" in stacks), precision)
    else:
        token = call_program(description, "encode", 1, 1, 0, precision)
    return {
        "n_parameters": description.n_parameters,
        "macs_per_token": macs_per_token(description),
        "weight_bytes_per_token": token.total("weight_bytes"),
        **_experts(description, batch),
    }


def _experts(description: Description, batch: int) -> dict[str, Any]:
    stored, per_token = description.n_experts, description.experts_per_token
    if not stored:
        return {}
    expected = expected_experts(stored, per_token, batch)
    return {"experts": {"stored": stored, "per_token": per_token, "expected_per_step": expected}}


def misfit_json(program: Program, npu: Npu, fidelity: str, why: NpuSimError) -> dict[str, Any]:
    """Say of a request that an NPU cannot run what can be said.

    Args:
        program: the request.
        npu: the NPU.
        fidelity: that was asked for.
        why: it cannot.

    Returns:
        The keys of `Report.to_json` that need no time, and the reason.
    """
    return {
        "simulated": True,
        "fits": False,
        "reason": str(why),
        "fidelity": fidelity,
        "model": program.model,
        "npu": npu.name,
        "precision": program.precision.widths(),
        "n_input": program.n_input,
        "n_output": program.n_output,
        "batch": program.batch,
        "stored_weight_bytes": program.stored_weight_bytes,
        "stored_kv_bytes": program.stored_kv_bytes,
        "peak_dram_bytes": program.stored_weight_bytes + program.stored_kv_bytes,
    }
