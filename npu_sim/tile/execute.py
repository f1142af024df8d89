"""The NPU computes: the pieces of the timeline, one after another, give the integers of the answer.

A request is run once to know its length, timed, and then run again with every product summed piece
by piece, in the order in which the matrix engine ends its tasks. Sums are exact in int64, so the
integers must be those of `mu_ref/ops/integer.py`, bit for bit. Chapter: `docs/07_npu_tiles.md`.
"""

from collections import defaultdict, deque
from dataclasses import dataclass
from typing import Any

import numpy as np

from mu_ref.generate import Step, stream
from mu_ref.integers.store import IntegerModel
from mu_ref.model import mu
from mu_ref.ops.integer import IntegerOps, Quantized
from npu_sim.errors import WorkloadError
from npu_sim.hardware.chip import Npu
from npu_sim.program.call import remember
from npu_sim.program.description import describe
from npu_sim.program.precision import Precision
from npu_sim.program.program import Program
from npu_sim.program.recorder import RecordOps
from npu_sim.tile.rows import program_table
from npu_sim.tile.simulate import TileRun, call_tasks, simulate_tiles
from npu_sim.tile.tasks import MATRIX, TASK

__all__ = ["Execution", "TileOps", "execute"]

Pieces = np.ndarray  # [n_pieces, 7] int64: head, rows, columns (or keys), sum
_PLACE = TASK["head"]


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


class TileOps(IntegerOps):
    """The integer executor with every product taken piece by piece, as a run has cut it.

    Args:
        model: integer weights.
        run: the timed request whose pieces are computed; calls come in the same order.
    """

    def __init__(self, model: IntegerModel, run: TileRun) -> None:
        super().__init__(model)
        self.n_products = self.n_pieces = 0
        self._head_of: tuple[int, ...] = ()
        self._pieces: dict[str, deque[Pieces]] = defaultdict(deque)
        for call in run.calls:
            found = call_tasks(call, run.npu)
            ended = np.argsort(found.end, kind="stable")
            tasks = found.tasks[ended]
            tasks = tasks[tasks[:, TASK["engine"]] == MATRIX]
            for row in np.unique(tasks[:, TASK["row"]]):
                own = tasks[tasks[:, TASK["row"]] == row, _PLACE:]
                self._pieces[call.table.ops[row].site].append(own)

    def share_heads(self, x: Quantized, head_of: tuple[int, ...], site: str) -> Quantized:
        """Note which kv head serves which query head."""
        self._head_of = head_of
        return super().share_heads(x, head_of, site)

    def sum_features(self, steps: np.ndarray, weight: np.ndarray, site: str) -> np.ndarray:
        """Sum pieces of weights."""
        x = steps.reshape(-1, steps.shape[-1])
        acc = np.zeros((len(x), len(weight)), np.int64)
        for _, row_0, row_1, col_0, col_1, sum_0, sum_1 in self._next(site):
            part = weight[col_0:col_1, sum_0:sum_1].astype(np.int64)
            acc[row_0:row_1, col_0:col_1] += x[row_0:row_1, sum_0:sum_1] @ part.T
        return acc.reshape(*steps.shape[:-1], len(weight))

    def sum_products(self, left: np.ndarray, right: np.ndarray, site: str) -> np.ndarray:
        """Sum pieces of keys, stored head by stored head."""
        groups = self._groups(left.shape[1])  # [n_stored, query heads that share one]
        batch, n_heads, m, k = left.shape
        n_stored, n = len(groups), right.shape[-1]
        a = left[:, groups].reshape(batch * n_stored, -1, k)  # rows of all sharing heads
        b = right[:, groups[:, 0]].reshape(batch * n_stored, k, n)
        acc = np.zeros((len(a), a.shape[1], n), np.int64)
        by_keys = site.endswith(".mix")
        keys = k if by_keys else n
        for head, row_0, row_1, first, last, _, _ in self._next(site):
            for at, key_0, key_1 in _keys_of(head, first, last, keys, len(a)):
                rows = slice(row_0, row_1)
                if by_keys:
                    acc[at, rows] += a[at, rows, key_0:key_1] @ b[at, key_0:key_1]
                else:
                    acc[at, rows, key_0:key_1] += a[at, rows] @ b[at, :, key_0:key_1]
        whole = np.empty((batch, n_heads, m, n), np.int64)
        whole[:, groups] = acc.reshape(batch, n_stored, -1, m, n)
        return whole

    def _groups(self, n_heads: int) -> np.ndarray:
        """Query heads of each kv head."""
        order = np.argsort(np.array(self._head_of), kind="stable")
        groups: np.ndarray = order.reshape(max(self._head_of) + 1, -1)
        assert groups.size == n_heads
        return groups

    def _next(self, site: str) -> Pieces:
        pieces = self._pieces[site].popleft()
        self.n_products += 1
        self.n_pieces += len(pieces)
        return pieces


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
    model: IntegerModel, source: np.ndarray, valid: np.ndarray, npu: Npu, max_new_tokens: int
) -> Execution:
    """Answer a batch of requests on the NPU, and time the very run that answers.

    Args:
        model: integer weights of an encoder-decoder, 8- or 16-bit activations.
        source: [batch, n_src] tokens.
        valid: [batch, n_src] bool, False at padding.
        npu: the NPU.
        max_new_tokens: limit of each answer.

    Returns:
        The steps and the run.

    Raises:
        WorkloadError: the model has no encoder or no decoder.
        NpuSimError: the NPU cannot run it.
    """
    config = model.model
    if config.encoder is None or config.decoder is None:
        raise WorkloadError(
            f"a model to execute must have an encoder and a decoder, {config.name} has not"
        )
    program = _record(model, source, valid, max_new_tokens)
    run = simulate_tiles(program_table(program), npu)
    ops = TileOps(model, run)
    steps = tuple(_steps(ops, model, mu.remember(ops, config, source, valid), max_new_tokens))
    return Execution(run=run, steps=steps, n_products=ops.n_products, n_pieces=ops.n_pieces)


def _steps(ops: Any, model: IntegerModel, memory: Any, max_new_tokens: int) -> Any:
    batch = len(memory.mask)
    start = np.full((batch, 1), model.model.bos_id)
    all_valid = np.ones(start.shape, bool)
    return stream(ops, model.model, memory, start, all_valid, max_new_tokens)


def _record(
    model: IntegerModel, source: np.ndarray, valid: np.ndarray, max_new_tokens: int
) -> Program:
    """Run once with values, to know what the request consists of."""
    bits = 16 if model.scheme == "w8a16" else 8
    precision = Precision(weight_bits=8, activation_bits=bits, kv_bits=bits, head_weight_bits=8)
    ops = RecordOps(describe(model.model), precision, IntegerOps(model))
    memory = remember(ops, source, valid)
    steps = _steps(ops, model, memory, max_new_tokens)
    n_output, ended = 0, False
    while not ended and n_output < max_new_tokens:
        ops.log.begin("decode")
        ended = bool(next(steps).ended.all())
        n_output += 1
    return ops.log.program(source.shape[1], n_output, len(source))
