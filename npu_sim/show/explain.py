"""Why an operation takes as long as it does: the arithmetic behind its time.

Every number of cycles that is printed is the sum of numbers printed below it, and each of these
follows from what stands behind it; a quotient is rounded up.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from npu_sim.errors import WorkloadError
from npu_sim.hardware.chip import Npu
from npu_sim.program.precision import precision_name
from npu_sim.program.program import VECTOR_WORK, Op
from npu_sim.program.rows import LINEAR
from npu_sim.tile.bottleneck import row_limits
from npu_sim.tile.simulate import CallRun, TileRun, call_tasks
from npu_sim.tile.tasks import ENGINES, PARTS, Engine, Part
from npu_sim.tile.tiling import cache_moved, chip_numbers, laid_out_rows, short_rows, whole_rows
from npu_sim.units import MILLION, ceil_div, format_exact, ms_from_cycles

__all__ = ["explain"]

FLOW_NAMES = {"os": "output", "ws": "weight", "is": "input"}
MOST_GROUPS = 8  # of an engine; pieces differ by a byte where sizes do not divide


def explain(run: TileRun, site: str, call_number: int | None = None) -> list[str]:
    """Explain one operation.

    Args:
        run: from `simulate_tiles`.
        site: of the operation.
        call_number: which graph call, from 0; by default the last one that has the site.

    Returns:
        Lines of text.

    Raises:
        WorkloadError: no such site or call; names sites that come close.
    """
    numbers = [n for n, call in enumerate(run.calls) if _row_of(call, site) is not None]
    if not numbers:
        raise WorkloadError(_unknown(run, site))
    number = numbers[-1] if call_number is None else call_number
    if number not in numbers:
        raise WorkloadError(
            f"call must be one that has {site}, {numbers[0]} to {numbers[-1]}, got {number}"
        )
    call = run.calls[number]
    row = _row_of(call, site)
    assert row is not None
    op, npu = call.table.ops[row], run.npu
    phase = call.table.call.phase
    return [
        (
            f"{site}: {op.kind} in call {number} ({phase}), "
            f"{run.table.program.model} on {npu.name}, "
            f"{run.table.program.precision.label()}, simulated"
        ),
        *_shapes(op),
        *_engines(call, row, npu),
        *_waits(call, row, npu),
    ]


def _row_of(call: CallRun, site: str) -> int | None:
    return next((i for i, op in enumerate(call.table.ops) if op.site == site), None)


def _unknown(run: TileRun, site: str) -> str:
    sites = dict.fromkeys(op.site for call in run.calls for op in call.table.ops)
    last = site.rpartition(".")[2]
    close = [name for name in sites if name.endswith(f".{last}") or name.startswith(site)][:4]
    hint = ", ".join(close or list(sites)[:4])
    return f"site must be an operation that takes time, got {site!r}; for example {hint}"


def _shapes(op: Op) -> list[str]:
    lines = []
    for tensor in (*op.inputs, op.output):
        what = "writes" if tensor is op.output else "reads"
        scales = f" + {tensor.scale_bytes:,} B of scales" if tensor.scale_bytes else ""
        lines.append(
            f"  {what:<7} {tensor.name} {list(tensor.shape)}, {tensor.bits} bits, {tensor.role}: "
            f"{tensor.n_bytes:,} B{scales}"
        )
    if op.gemm is not None:
        g = op.gemm
        many = f"{g.count} x " if g.count > 1 else ""
        lines.append(
            f"  product {many}[{g.m}, {g.k}] x [{g.k}, {g.n}] = {op.macs:,} MACs of "
            f"{precision_name(*op.operand_bits)}"
        )
    if op.vector_elements:
        work = VECTOR_WORK[op.vector_work]
        lines.append(
            f"  elements {op.vector_elements:,} x ({work.simple_operations} simple + "
            f"{work.special_functions} special operations) of {op.vector_work}"
        )
    return lines


class _Term(NamedTuple):
    """Cycles, and what they follow from."""

    cycles: int
    text: str


class _Pieces(NamedTuple):
    """Tasks that are explained alike."""

    what: str  # "weights", "product [64, 768] x [768, 320]"
    terms: tuple[_Term, ...]  # of each, or of all together
    together: bool = False

    @property
    def cycles(self) -> int:
        return sum(term.cycles for term in self.terms)


def _engines(call: CallRun, row: int, npu: Npu) -> list[str]:
    """Each engine's tasks, alike ones together: how many, how long, and why."""
    tasks = call_tasks(call, npu)
    explained = _Explained(call, row, npu, tasks)
    lines = []
    for engine in (Engine.CONTROL, Engine.DMA_IN, Engine.VECTOR, Engine.MATRIX, Engine.DMA_OUT):
        mine = np.flatnonzero((tasks["op"] == row) & (tasks["engine"] == engine))
        if not len(mine):
            continue
        total = int(tasks["cycles"][mine].sum())
        tasks_ = "task" if len(mine) == 1 else "tasks"
        lines.append(f"  {ENGINES[engine]}: {len(mine):,} {tasks_}, {total:,} cycles")
        groups: dict[_Pieces, int] = {}
        for at, count in _alike(tasks[mine]):
            pieces = explained.task(int(mine[at]))
            groups[pieces] = groups.get(pieces, 0) + count
        lines += _listed(groups)
    return lines


def _alike(tasks: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield the place of one task of each kind that is among them, and how many there are."""
    sizes = [tasks[f"{axis}_1"] - tasks[f"{axis}_0"] for axis in ("row", "col", "sum")]
    key = np.stack([tasks["part"], tasks["cycles"], tasks["n_bytes"], tasks["head"] < 0, *sizes])
    _, first, counts = np.unique(key, axis=1, return_index=True, return_counts=True)
    yield from zip(first.tolist(), counts.tolist(), strict=True)


def _listed(groups: dict[_Pieces, int]) -> Iterator[str]:
    """The longest groups with their terms, the rest as a sum."""
    order = sorted(groups, key=lambda pieces: -pieces.cycles * groups[pieces])
    for pieces in order[:MOST_GROUPS]:
        count = groups[pieces]
        if pieces.together:
            yield f"    {count:,} x {pieces.what}, together {pieces.cycles:,} cycles"
        else:
            each = " each" if count > 1 else ""
            yield f"    {count:,} x {pieces.what}, {pieces.cycles:,} cycles{each}"
        for sign, term in zip("=" + "+" * len(pieces.terms), pieces.terms, strict=False):
            yield f"      {sign} {term.cycles:,}: {term.text}"
    if rest := order[MOST_GROUPS:]:
        cycles = sum(pieces.cycles * groups[pieces] for pieces in rest)
        count = sum(groups[pieces] for pieces in rest)
        yield f"    {count:,} x of other sizes, together {cycles:,} cycles"


class _Explained:
    """What the cycles of the tasks of one operation follow from."""

    def __init__(self, call: CallRun, row: int, npu: Npu, tasks: np.ndarray) -> None:
        self.op, self.row, self.npu, self.tasks = (
            call.table.ops[row],
            call.table.rows[row],
            npu,
            tasks,
        )
        self.mine = tasks["op"] == row
        self.clock = format_exact(npu.clock_hz, "Hz")
        self.parts: dict[int, Callable[[int], _Pieces]] = {
            Part.START: self.start, Part.PRODUCT: self.product, Part.UNPACK: self.unpack,
            Part.ELEMENTS: self.elements,
        }  # fmt: skip

    def task(self, at: int) -> _Pieces:
        return self.parts.get(int(self.tasks["part"][at]), self.transfer)(at)

    def start(self, _at: int) -> _Pieces:
        term = _Term(self.npu.per_op_overhead_cycles, "to start an operation")
        return _Pieces(PARTS[Part.START], (term,))

    def transfer(self, at: int) -> _Pieces:
        """A move between DRAM and SRAM, or the way that the port gives to one."""
        part = int(self.tasks["part"][at])
        # the port gives way to the write just before
        n_bytes = int(self.tasks["n_bytes"][at - 1 if part == Part.GIVE_WAY else at])
        what = "give way to a write" if part == Part.GIVE_WAY else PARTS[part]
        if not n_bytes:
            return _Pieces(what, (_Term(0, "lies in SRAM already"),))
        rate, unit = self.npu.memory_bytes_per_s, "B"
        if part == Part.CACHE and self.row.empty:  # slots without a token
            n_bytes = int(cache_moved(n_bytes, self.row, chip_numbers(self.npu)))
            unit = f"B, empty slots at {self.npu.dma.empty_slot_share:.15g},"
        terms = [self.passed(n_bytes, unit, rate, "B/s")]
        if part == Part.CACHE and (per_s := self.npu.dma.cache_bytes_per_s):
            terms.append(self.passed(n_bytes, "B laid out", per_s, "B/s"))
        # what is left is to set up: once, or for each piece of a bundle
        left = int(self.tasks["cycles"][at]) - sum(term.cycles for term in terms)
        each = self.npu.dma.setup_cycles
        text = "to set up the transfer" if left == each else f"to set up transfers of {each:,} each"
        return _Pieces(what, (_Term(left, text), *terms))

    def passed(self, amount: int, unit: str, rate: int, per: str) -> _Term:
        cycles = ceil_div(amount * self.npu.clock_hz, rate)
        return _Term(cycles, f"{amount:,} {unit} x {self.clock} / {format_exact(rate, per)}")

    def unpack(self, at: int) -> _Pieces:
        load = self.tasks[int(self.tasks["needs"][at])]
        elements = 2 * int(load.n_bytes)  # of the cache; of weights as many as the piece has
        if load.part == Part.WEIGHTS:
            elements = int((load.col_1 - load.col_0) * (load.sum_1 - load.sum_0))
        rate = self.npu.vector.unpack_elements_per_cycle
        term = _Term(ceil_div(elements, rate), f"{elements:,} elements / {rate:,} per cycle")
        return _Pieces(PARTS[Part.UNPACK], (term,))

    def elements(self, _at: int) -> _Pieces:
        """All pieces together: each takes its share, the last one what is left."""
        vector, row = self.npu.vector, self.row
        lanes = max(1, vector.width_bytes // int(row.stored_bytes))
        share = vector.float_efficiency if row.floats else vector.efficiency
        simple, special = int(row.simple), int(row.special)
        steps = int(np.ceil(simple + special * vector.special_function_cycles))
        more = f" + {special:,} x {vector.special_function_cycles:.15g}" if special else ""
        chip, rows = chip_numbers(self.npu), int(row.rows)
        whole = int(whole_rows(rows, chip))
        tiles = f" x {whole:,} / {rows:,} rows" if whole != rows else ""
        text = f"({simple:,}{more}) operations{tiles} / ({lanes:,} lanes x {share:.15g})"
        cycles = int(np.ceil(steps * whole / rows / (lanes * share) * (1 - 1e-12)))
        terms = [_Term(cycles, text)]
        parts = self.tasks["part"] == Part.ELEMENTS
        took = int(self.tasks["cycles"][self.mine & parts].sum())
        if took != cycles:
            terms.append(_Term(took - cycles, "as each piece takes whole cycles"))
        return _Pieces(PARTS[Part.ELEMENTS], tuple(terms), together=True)

    def product(self, at: int) -> _Pieces:
        """One piece of a product; of cached attention, all pieces together."""
        task, row = self.tasks[at], self.row
        heads = max(1, int(row.b_heads))
        if row.form == LINEAR:
            sizes = [int(task[f"{axis}_1"] - task[f"{axis}_0"]) for axis in ("row", "col", "sum")]
            term, what = self.multiplied(1, *sizes)
            laid_out = int(whole_rows(sizes[0], chip_numbers(self.npu))) * sizes[1]
            per_s, per = self.npu.matrix.output_elements_per_s, " elements/s"
            unit, together = "results laid out", False
        else:
            m, n, k = int(row.m) * (int(row.products) // heads), int(row.n), int(row.k)
            laid_out = int(laid_out_rows(row.laid_out, row.rows, chip_numbers(self.npu)))
            per_s, per = self.npu.dma.cache_bytes_per_s, "B/s"
            unit, together = "B laid out", task.head < 0
            if together:
                term, what = self.multiplied(heads, m, n, k)
            else:
                some, m = int(task.col_1 - task.col_0), int(task.row_1 - task.row_0)
                laid_out = laid_out * some // (heads * (k if row.keys_are_k else n))
                term, what = self.multiplied(1, m, *((n, some) if row.keys_are_k else (some, k)))
        terms = [term]
        took = self.all_products() if together else int(task.cycles)
        if took > term.cycles and per_s:  # partial sums, and keys read laid out, take no more
            terms.append(self.passed(laid_out, unit, per_s, per))
        if sum(one.cycles for one in terms) != took:  # blocks of rows, each with its own folds
            terms = [_Term(took, "for blocks of rows, bundled")]
        return _Pieces(f"{PARTS[Part.PRODUCT]} {what}", tuple(terms), together)

    def all_products(self) -> int:
        """Cycles of all products of the operation."""
        return int(self.tasks["cycles"][self.mine & (self.tasks["part"] == Part.PRODUCT)].sum())

    def multiplied(self, count: int, m: int, n: int, k: int) -> tuple[_Term, str]:
        """Cycles of `count` products of [m k] and [k n] on the array, and their shapes."""
        matrix, bits = self.npu.matrix, self.op.operand_bits
        rate = matrix.macs_per_cycle(*bits)
        share = matrix.efficiency(*bits, attention=self.op.kind == "matmul")
        many = f"{count} x " if count > 1 else ""
        if matrix.dataflow == "blocks":
            short = short_rows(self.npu)
            sizes = (short if m <= short else matrix.tile_m, matrix.tile_n, matrix.tile_k)
            blocks = [ceil_div(a, b) for a, b in zip((m, n, k), sizes, strict=True)]
            slots = [*blocks, *sizes]
            text = f"{_times(blocks)} blocks of {_times(sizes)}"
        else:
            rows, columns = matrix.rows, matrix.columns
            first, second, steps, fill = {
                "os": (m, n, k, rows + columns - 2),
                "ws": (k, n, m, 2 * rows + columns - 2),
                "is": (k, m, n, 2 * rows + columns - 2),
            }[matrix.dataflow]
            folds = ceil_div(first, rows) * ceil_div(second, columns)
            slots = [folds, steps + fill, rows, columns]
            flow = f"{FLOW_NAMES[matrix.dataflow]}-stationary"
            text = f"{folds:,} folds x ({steps:,} + {fill:,}) x {rows} x {columns} cells, {flow}"
        per_million = round(rate * MILLION * share)
        n_slots = count * int(np.prod(np.array(slots, object)))
        cycles = ceil_div(n_slots * MILLION, per_million)
        text = f"{many}{text} / ({rate:,} x {share:.15g} MACs per cycle)"
        return _Term(cycles, text), f"{many}[{m}, {k}] x [{k}, {n}]"


def _times(numbers: "list[int] | tuple[int, ...]") -> str:
    return " x ".join(f"{number:,}" for number in numbers)


def _waits(call: CallRun, row: int, npu: Npu) -> list[str]:
    begin = int(call.times[row].begin)
    limits = [int(value) for value in row_limits(call)[row]]
    took = sum(limits)
    compute, elements, memory, start = limits
    parts = [f"{start:,} for its start"]
    parts += [f"{compute:,} for the matrix engine"] if compute else []
    parts += [f"{elements:,} for the vector engine"] if elements else []
    parts += [f"the rest, {memory:,}, for memory"] if memory else []
    us = 1000 * ms_from_cycles(took, npu.clock_hz)
    return [
        f"  took {took:,} cycles ({us:.3g} us), from {begin:,} to {begin + took:,} of its call",
        f"    = {' + '.join(parts)}",
    ]
