"""The NPU computes: the pieces of the timeline, one after another, give the integers of the answer.

A request is run once to know its length, timed, and then run again with every product summed piece
by piece, in the order in which the matrix engine ends its tasks. Sums are exact in int64, so the
integers must be those of `mu_ref/ops/integer.py`, bit for bit. Chapter: `docs/13_tiles.md`.
"""

from collections import defaultdict, deque
from dataclasses import dataclass
from typing import Any

import numpy as np

from mu_ref.generate import Guide, Step, stream
from mu_ref.integers.store import IntegerModel
from mu_ref.model import mu
from mu_ref.ops.integer import IntegerOps
from npu_sim.errors import WorkloadError
from npu_sim.hardware.chip import Npu
from npu_sim.program.call import remember
from npu_sim.program.description import describe
from npu_sim.program.precision import Precision
from npu_sim.program.program import Program
from npu_sim.program.recorder import RecordOps
from npu_sim.program.rows import program_table
from npu_sim.tile.simulate import TileRun, call_tasks, simulate_tiles
from npu_sim.tile.tasks import Engine

__all__ = ["Execution", "PieceProducts", "execute"]

PLACE = ("head", "row_0", "row_1", "col_0", "col_1", "sum_0", "sum_1")
Pieces = list[tuple[int, ...]]  # the place of each; of attention columns are keys


@dataclass(frozen=True, eq=False)
class Execution:
    """What the NPU computed, and when."""

    run: TileRun
    steps: tuple[Step, ...]  # the integers stand behind step.logits
    n_products: int  # matrix operations computed
    n_pieces: int  # pieces that they were computed in

    @property
    def tokens(self) -> list[int]:
        """What the steps wrote, of the first row."""
        return [int(step.tokens[0]) for step in self.steps]


class PieceProducts:
    """The products of `IntegerOps` taken piece by piece, as a run has cut them.

    Args:
        model: integer weights; says which query heads share a stored head.
        run: the timed request whose pieces are computed; products come in the same order.
    """

    def __init__(self, model: IntegerModel, run: TileRun) -> None:
        self.n_products = self.n_pieces = 0
        self._stacks = model.model.stacks
        self._pieces: dict[str, deque[Pieces]] = defaultdict(deque)
        for call in run.calls:
            tasks = call_tasks(call, run.npu)
            products = tasks[tasks["engine"] == Engine.MATRIX]
            products = products[np.argsort(products["end"], kind="stable")]
            for op in np.unique(products["op"]):
                pieces = products[products["op"] == op][list(PLACE)].tolist()
                self._pieces[call.table.ops[op].site].append(pieces)

    def __call__(self, left: np.ndarray, right: np.ndarray, site: str) -> np.ndarray:
        """Multiply [..., m, k] by weights [k, n] or by keys or values [batch, n_heads, k, n]."""
        pieces = self._pieces[site].popleft()
        self.n_products += 1
        self.n_pieces += len(pieces)
        if right.ndim == 2:
            return _weight_pieces(left, right, pieces)
        heads = self._stacks[site.partition(".")[0]].kv_head_of
        return _attention_pieces(left, right, heads, site.endswith(".mix"), pieces)


def _weight_pieces(left: np.ndarray, right: np.ndarray, pieces: Pieces) -> np.ndarray:
    """Sum pieces of weights."""
    x = left.reshape(-1, left.shape[-1])  # [m, k], all tokens of all rows of the batch
    acc = np.zeros((len(x), right.shape[1]), np.int64)
    for _, row_0, row_1, col_0, col_1, sum_0, sum_1 in pieces:
        part = x[row_0:row_1, sum_0:sum_1] @ right[sum_0:sum_1, col_0:col_1]
        acc[row_0:row_1, col_0:col_1] += part
    return acc.reshape(*left.shape[:-1], -1)


def _attention_pieces(
    left: np.ndarray, right: np.ndarray, head_of: tuple[int, ...], by_keys: bool, pieces: Pieces
) -> np.ndarray:
    """Sum pieces of keys, stored head by stored head."""
    # [n_stored, n_sharing]: the query heads of each stored head
    groups = np.argsort(np.array(head_of), kind="stable").reshape(max(head_of) + 1, -1)
    batch, n_heads, m, k = left.shape
    n_stored, n = len(groups), right.shape[-1]
    # [batch * n_stored, n_sharing * m, k]: rows of sharing heads below each other
    a = left[:, groups].reshape(batch * n_stored, -1, k)
    b = right[:, groups[:, 0]].reshape(batch * n_stored, k, n)
    acc = np.zeros((len(a), a.shape[1], n), np.int64)
    keys = k if by_keys else n
    for head, row_0, row_1, first, last, _, _ in pieces:
        for at, key_0, key_1 in _keys_of(head, first, last, keys, len(a)):
            rows = slice(row_0, row_1)
            if by_keys:
                acc[at, rows] += a[at, rows, key_0:key_1] @ b[at, key_0:key_1]
            else:
                acc[at, rows, key_0:key_1] += a[at, rows] @ b[at, :, key_0:key_1]
    whole = np.empty((batch, n_heads, m, n), np.int64)
    whole[:, groups] = acc.reshape(batch, n_stored, -1, m, n)
    return whole


def _keys_of(
    head: int, first: int, last: int, keys: int, n_stored: int
) -> list[tuple[int, int, int]]:
    """(stored head, first key, last key) of a piece; without a head, keys of all heads in a row."""
    if head >= 0:
        return [(head, first, last)]
    return [
        (at, max(first - at * keys, 0), min(last - at * keys, keys))
        for at in range(n_stored)
        if first < (at + 1) * keys and last > at * keys
    ]


def execute(
    model: IntegerModel,
    source: np.ndarray,
    valid: np.ndarray,
    npu: Npu,
    max_new_tokens: int,
    guide: Guide | None = None,
) -> Execution:
    """Answer a batch of requests on the NPU, and time the very run that answers.

    Args:
        model: integer weights of an encoder-decoder, 8- or 16-bit activations.
        source: [batch, n_src] tokens.
        valid: [batch, n_src] bool, False at padding.
        npu: the NPU.
        max_new_tokens: limit of each answer.
        guide: masks the logits, on the host.

    Returns:
        The steps and the run.

    Raises:
        WorkloadError: the model has no encoder or no decoder.
        NpuSimError: the NPU cannot run it.
    """
    if set(model.model.stacks) != {"encoder", "decoder"}:
        raise WorkloadError(
            f"a model to execute must have an encoder and a decoder, {model.model.name} has not"
        )
    program = _record(model, source, valid, max_new_tokens, guide)
    run = simulate_tiles(program_table(program), npu)
    products = PieceProducts(model, run)
    ops = IntegerOps(model, products)
    memory = mu.remember(ops, model.model, source, valid)
    steps = tuple(_steps(ops, model, memory, max_new_tokens, guide))
    return Execution(
        run=run, steps=steps, n_products=products.n_products, n_pieces=products.n_pieces
    )


def _steps(
    ops: Any, model: IntegerModel, memory: Any, max_new_tokens: int, guide: Guide | None
) -> Any:
    batch = len(memory.mask)
    start = np.full((batch, 1), model.model.bos_id)
    all_valid = np.ones(start.shape, bool)
    return stream(ops, model.model, memory, start, all_valid, max_new_tokens, guide=guide)


def _record(
    model: IntegerModel,
    source: np.ndarray,
    valid: np.ndarray,
    max_new_tokens: int,
    guide: Guide | None,
) -> Program:
    """Run once with values, to know what the request consists of."""
    bits = 16 if model.scheme == "w8a16" else 8
    precision = Precision(weight_bits=8, activation_bits=bits, kv_bits=bits, head_weight_bits=8)
    ops = RecordOps(describe(model.model), precision, IntegerOps(model))
    memory = remember(ops, source, valid)
    steps = _steps(ops, model, memory, max_new_tokens, guide)
    n_output, ended = 0, False
    while not ended and n_output < max_new_tokens:
        ops.log.begin("decode")
        ended = bool(next(steps).ended.all())
        n_output += 1
    return ops.log.program(source.shape[1], n_output, len(source))
