"""Kernels of the simulator against the plain versions that they repeat. Contract: exact.

Each kernel that has a plain version is in `TWINS`; it is run compiled, and as plain Python with
every kernel that it calls. Tasks and times are compared field by field, in order.
"""

import pkgutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType

import numpy as np
import pytest
from beside import bounds_checked
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from npu_strategies import chips, configs, lengths, precisions
from numba.core.dispatcher import Dispatcher
from strategies import seeds

import npu_sim
from npu_sim.errors import CapacityError
from npu_sim.program.request import record_request
from npu_sim.program.rows import program_table
from npu_sim.systolic import cells, cells_kernel
from npu_sim.tile import engine, engine_kernel, schedule, schedule_kernel
from npu_sim.tile.least import least_cycles, least_tasks
from npu_sim.tile.plan import pin_choices, plans
from npu_sim.tile.tasks import TASK, Engine, Part
from npu_sim.tile.tiling import chip_numbers, vector_cycles

# what each kernel repeats
TWINS = {
    (cells_kernel, "operand_stationary_fold"): cells.operand_stationary_fold,
    (cells_kernel, "output_stationary_fold"): cells.output_stationary_fold,
    (engine_kernel, "find_room"): engine.Memory,
    (engine_kernel, "run"): engine.run,
    (schedule_kernel, "schedule"): schedule.schedule,
}
MOST_TASKS = 1200

more_chips = st.builds(
    lambda chip, ahead, fuses, keys, results, unpack: chip.with_changes(
        {
            "dma.runs_ahead": ahead, "sram.fuses_operations": fuses,
            "dma.cache_bytes_per_s": keys, "matrix.output_elements_per_s": results,
            "vector.unpack_elements_per_cycle": unpack,
        }
    ),
    chips, st.booleans(), st.sampled_from([False, False, True]), st.sampled_from([0, 10**9]),
    st.sampled_from([0, 3 * 10**8]), st.sampled_from([1, 3, 64]),
)  # fmt: skip


@contextmanager
def as_python(*modules: ModuleType) -> Iterator[None]:
    """Let kernels of these modules, and those that they call, run as plain Python."""
    with pytest.MonkeyPatch.context() as patch:
        for module in modules:
            for name, value in list(vars(module).items()):
                if isinstance(value, Dispatcher):
                    patch.setattr(module, name, value.py_func)
        yield


def records(tasks):
    """Tasks of the plain version as the kernel writes them; rooms and times come later."""
    at = {task: number for number, task in enumerate(tasks)} | {None: -1}
    found = np.zeros(len(tasks), TASK)
    for number, task in enumerate(tasks):
        for name in ("op", "engine", "part", "cycles", "n_bytes", "written_op", "held_bytes",
                     "head"):  # fmt: skip
            found[number][name] = getattr(task, name)
        found[number].ring = -1 if task.ring is None else task.ring
        needs = sorted((at[other] for other in task.needs), reverse=True)
        found[number].needs, found[number].needs_too = (*needs, -1, -1)[:2]
        found[number].last_user = at[task.last_user]
        found[number].room = found[number].start = found[number].end = -1
        for axis, span in (("row", task.rows), ("col", task.columns), ("sum", task.sums)):
            found[number][f"{axis}_0"], found[number][f"{axis}_1"] = span.start, span.stop
    return found


def in_order_of_needs(tasks):
    """Which of two needs is named first means nothing."""
    tasks = tasks.copy()
    first, second = tasks["needs"].copy(), tasks["needs_too"].copy()
    tasks["needs"], tasks["needs_too"] = np.maximum(first, second), np.minimum(first, second)
    return tasks


def differing(found, expected):
    """Fields that differ, with the first place where each does."""
    assert len(found) == len(expected)
    return {
        name: (at, found[name][at], expected[name][at])
        for name in TASK.names
        if len(different := np.flatnonzero(found[name] != expected[name]))
        for at in different[:1]
    }


def one_plan(data, config, request, precision, chip):
    """A call and one of its plans, whether it works or not."""
    table = program_table(record_request(config, *request[:2], precision, request[2]))
    call = data.draw(st.sampled_from(table.calls))
    pins = data.draw(st.sampled_from(pin_choices(table, chip)))
    possible = list(plans(call, chip, pins))
    assume(possible)
    return call, data.draw(st.sampled_from(possible))


def test_every_kernel_has_a_plain_version_and_says_so():
    names = [module.name for module in pkgutil.walk_packages(npu_sim.__path__, "npu_sim.")]
    modules = [import_module(name) for name in names if name.endswith("_kernel")]
    found = {
        (module, name)
        for module in modules
        for name in module.__all__
        if isinstance(getattr(module, name), Dispatcher)
    }
    assert found == set(TWINS)
    for (module, name), plain in TWINS.items():
        where = f"{plain.__module__.rpartition('.')[2]}.{plain.__name__}"
        text = " ".join(getattr(module, name).py_func.__doc__.split())
        assert f"Twin of `{where}`" in text
        assert "Contract: exact." in text


def scheduled(call, plan, chip):
    """Tasks of the kernel, without rooms."""
    tasks = np.empty(MOST_TASKS, TASK)
    work = vector_cycles(call.rows, chip)
    n_tasks = schedule_kernel.schedule(call.rows, work, plan, chip_numbers(chip), tasks)
    assume(n_tasks <= MOST_TASKS)
    return tasks[:n_tasks]


def timed(tasks, call, plan, streams=False):
    """What the compiled clock makes of tasks; None if a task can have no room."""
    tasks = tasks.copy()
    if not engine_kernel.find_room(
        tasks, plan.rings, engine_kernel.NO_MARKS, engine_kernel.NO_RINGS
    ):
        return None
    times = np.zeros(len(call.rows), engine_kernel.TIMES)
    last = engine_kernel.run(tasks, call.rows["kv_written"] > 0, streams, times)
    assert last >= tasks["end"].max() if streams else last == tasks["end"].max()
    return list(zip(tasks["start"].tolist(), tasks["end"].tolist(), strict=True)), times


def timed_by_events(tasks, call, plan, streams=False):
    """The same from the loop over events, and operations added up one by one."""
    try:
        spans = engine.run(tasks, plan, streams=streams)
    except CapacityError:
        return None
    times = np.zeros(len(call.rows), engine_kernel.TIMES)
    cached = {Part.CACHE: 1, Part.WEIGHTS: 0, Part.BESIDE: 0}
    done = 0
    for op, row in enumerate(call.rows):
        ends = [(task, end) for task, (_, end) in zip(tasks, spans, strict=True)]
        before = [end for task, end in ends if task.op < op and computes(task)]
        own = [(task, end) for task, end in ends if task.op == op]
        times[op].begin = max(before, default=0)
        times[op].end = max([end for task, end in own if computes(task)] + before)
        if streams:  # its last part, a sixteenth, follows that of the operation before
            work = sum(t.cycles for t, _ in own if t.engine in (Engine.MATRIX, Engine.VECTOR))
            times[op].begin = done
            done = max([done + -(-work // 16), *(end for task, end in own if computes(task))])
            times[op].end = done
        for task, _ in own:
            times[op].busy_cycles[task.engine] += task.cycles
            keeps = row.kv_written > 0 and task.part == Part.WRITE
            times[op].dram_bytes[1 if keeps else cached.get(task.part, 2)] += task.n_bytes
    return spans, times


def computes(task):
    return task.engine not in (Engine.DMA_IN, Engine.DMA_OUT)


def check_same_times(found, expected):
    assert (found is None) == (expected is None)
    if found is not None:
        assert found[0] == expected[0]
        assert found[1].tobytes() == expected[1].tobytes()


@settings(max_examples=90)
@given(st.data(), configs, lengths, precisions, more_chips)
def test_the_schedule_and_its_kernel_write_the_same_tasks(data, config, request, precision, chip):
    call, plan = one_plan(data, config, request, precision, chip)
    tasks = in_order_of_needs(scheduled(call, plan, chip))
    plain = list(schedule.schedule(call, plan, chip))
    assert differing(tasks, records(plain)) == {}
    # where operations are not fused, results of two engines would share a ring
    streams = chip.sram.fuses_operations and data.draw(st.booleans())
    times = timed(tasks, call, plan, streams)
    check_same_times(times, timed_by_events(plain, call, plan, streams))
    numbers = chip_numbers(chip)
    if times is not None:
        assert least_cycles(
            call, vector_cycles(call.rows, chip), plan, numbers, streams=streams
        ) <= max(end for _, end in times[0])
    assert least_tasks(call, plan, numbers) <= len(plain)


@settings(max_examples=25)
@given(st.data(), configs, lengths, precisions, more_chips)
def test_the_kernels_as_plain_python_do_the_same(data, config, request, precision, chip):
    call, plan = one_plan(data, config, request, precision, chip)
    compiled = scheduled(call, plan, chip)
    assume(len(compiled) < 300)
    streams = data.draw(st.booleans())
    times = timed(compiled, call, plan, streams)
    with as_python(schedule_kernel, engine_kernel):
        assert differing(scheduled(call, plan, chip), compiled) == {}
        check_same_times(timed(compiled, call, plan, streams), times)


@pytest.mark.parametrize("python", [False, True], ids=["compiled", "python"])
@pytest.mark.parametrize("name", ["output_stationary_fold", "operand_stationary_fold"])
@settings(max_examples=60)
@given(st.data(), st.integers(1, 6), st.integers(1, 6), st.integers(1, 9), seeds)
def test_the_cells_all_at_once_are_the_cells_one_by_one(name, python, data, rows, cols, k, seed):
    # a fold may be smaller than the array, but not larger
    m, n = data.draw(st.integers(1, rows)), data.draw(st.integers(1, cols))
    rng = np.random.default_rng(seed)
    shapes = ((m, k), (k, n)) if name.startswith("output") else ((m, n), (k, m))
    operands = [rng.integers(-128, 128, shape, np.int8) for shape in shapes]
    size = (m, n) if name.startswith("output") else (k, n)
    found, expected = np.zeros(size, np.int32), np.zeros(size, np.int32)
    with as_python(*[cells_kernel] * python):
        counts = getattr(cells_kernel, name)(*operands, found, rows, cols)
    assert counts == getattr(cells, name)(*operands, expected, rows, cols)
    assert (found == expected).all()


@bounds_checked(
    f"{__file__}::{test_the_schedule_and_its_kernel_write_the_same_tasks.__name__}",
    f"{__file__}::{test_the_cells_all_at_once_are_the_cells_one_by_one.__name__}",
)
def test_no_kernel_reads_or_writes_outside_its_arrays(beside):
    assert beside.returncode == 0, beside.stdout[-2000:]
