"""Counts of a model that need no hardware. Chapter: `docs/families.md`."""

from npu_sim.program.call import call_program
from npu_sim.program.description import Description
from npu_sim.program.precision import Precision

__all__ = ["macs_per_token"]


def macs_per_token(description: Description) -> int:
    """Return the multiply-accumulates of all matrices that one token passes.

    That is one decoded token, its head included and what the decoder once makes of the encoder's
    output left out; or one encoded token of a model that only reads. Attention itself is not
    counted, as it grows with the context, nor a pooler, which reads one token of a text.

    Args:
        description: the model.

    Returns:
        The count; of a mixture of experts, those of the experts that a token chooses.
    """
    model = description.model
    phase, n_memory = ("encode", 0) if model.decoder is None else ("decode", 1)
    if model.encoder is None:
        n_memory = 0
    program = call_program(description, phase, 1, 1, n_memory, Precision())
    return sum(op.macs for op in program.ops if op.kind == "linear" and op.site != "pooler")
