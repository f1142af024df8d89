"""The fast integer executor on the operation tier: every edge case, to the last bit."""

import numpy as np
import pytest

from mu_ref.golden.edge_cases import edge_cases
from mu_ref.golden.operations import INPUTS, SITE, Case, arguments_of, model_of, run_case
from mu_ref.ops.fast.integers import FastIntegerOps
from mu_ref.ops.fast.memory import Tensor

CASES = list(edge_cases())


def handed_in(ops: FastIntegerOps, case: Case, name: str) -> Tensor:
    """A value of a case as this executor holds it: steps, of heads one token after another."""
    encoding = case.encodings[name]
    steps = (case.arrays[name].astype(np.int64) - encoding.zero_point).astype(np.int16)
    if case.op != "rope":
        return ops._stored(steps, encoding)
    batch, n_heads, n_tok, d_head = steps.shape
    rows = steps.transpose(0, 2, 1, 3).reshape(batch, n_tok, n_heads * d_head)
    return ops.split_heads(ops._stored(rows, encoding), n_heads, SITE)


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_an_edge_case_gives_the_integers_of_the_plain_executor(case: Case) -> None:
    ops = FastIntegerOps(model_of(case))
    values = [handed_in(ops, case, name) for name in INPUTS if name in case.arrays]
    result = getattr(ops, case.op)(*values, site=SITE, **arguments_of(case))
    found = ops._quantized(result).q if isinstance(result, Tensor) else np.asarray(result)
    np.testing.assert_array_equal(found, run_case(case)["out"])
