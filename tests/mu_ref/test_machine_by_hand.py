"""What the machines share: parts of threads, places of attention, how many threads there are."""

import os
import random
from collections.abc import Iterator
from contextlib import suppress
from threading import Barrier, get_ident

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mu_ref.config import INT4_GROUP
from mu_ref.errors import InputError
from mu_ref.kernels import float_program, integer_program, machine
from mu_ref.kernels.drafts import passes
from mu_ref.kernels.machine import next_part, places, share, work_of
from mu_ref.kernels.products.linear import BLOCK
from mu_ref.kernels.products.parts import OWN_ROWS, n_blocks, next_rows
from mu_ref.kernels.threads import SMALL, n_threads, new_counter, run_on


@pytest.mark.parametrize("n", [0, 1, 7, 32, 33, 100])
@pytest.mark.parametrize(("n_threads", "step"), [(1, 1), (2, 1), (3, 4), (5, 32)])
def test_threads_share_all_places_in_whole_steps(n: int, n_threads: int, step: int) -> None:
    parts = [share.py_func(n, thread, n_threads, step) for thread in range(n_threads)]
    ends = [0, *(last for _, last in parts)]
    assert [first for first, _ in parts] == ends[:-1]
    assert ends[-1] == n
    assert all(end % step == 0 for end in ends if end < n)
    sizes = [-(-(last - first) // step) for first, last in parts]
    assert max(sizes) - min(sizes) <= 1


def in_any_order(threads: list[Iterator[None]], luck: random.Random) -> None:
    """Let threads go on, now one and now another, until all have ended."""
    while threads:
        one = luck.choice(threads)
        if next(one, one) is one:
            threads.remove(one)


@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(1, 4)), min_size=1, max_size=4),
    st.integers(1, 4), st.sampled_from([0, machine.LINES - 1, machine.LINES]), st.randoms(),
)  # fmt: skip
def test_each_part_is_done_once_in_whatever_order_threads_come(
    operations: list[tuple[int, int]], n: int, line: int, luck: random.Random
) -> None:
    """Threads do one operation after the other, each of some blocks, and meet nowhere."""
    counter, step, size = new_counter(n), 4, 8
    done: dict[tuple[int, int], list[int]] = {}

    def thread(number: int) -> Iterator[None]:
        for met, (length, blocks) in enumerate(operations, 1):
            work = work_of(counter.ctypes.data, met, line, n)
            for block in range(blocks):
                at, end, turn = next_part(work, block, 0, 0, number, n, length, step, size)
                while at < end:
                    done.setdefault((met, block), []).extend(range(at, end))
                    assert at % step == 0
                    assert end - at <= size
                    yield
                    more = turn, end, number, n, length, step, size
                    at, end, turn = next_part(work, block, *more)
                yield

    in_any_order([thread(number) for number in range(n)], luck)
    for met, (length, blocks) in enumerate(operations, 1):
        for block in range(blocks):
            assert sorted(done[met, block]) == list(range(length))


@given(
    st.integers(1, 300), st.integers(1, 300), st.integers(1, 4), st.sampled_from([16, 48]),
    st.sampled_from([32, 64]), st.sampled_from([0, machine.LINES]), st.randoms(),
)  # fmt: skip
def test_each_output_of_each_row_is_computed_once(
    n_rows: int, d_out: int, n: int, step: int, block: int, line: int, luck: random.Random
) -> None:
    """In whatever order threads come; many rows belong to one thread each, but for what it left."""
    counter, done = new_counter(n), np.zeros((n_rows, d_out), int)
    begun: list[set[int]] = [set() for _ in range(n)]

    def thread(number: int) -> Iterator[None]:
        work = work_of(counter.ctypes.data, 1, line, n)
        for which in range(n_blocks(n_rows, n, block)):
            rest = number, n, d_out, step, 96, n_rows, block
            some, turn, at, top, rows, c, end = next_rows(work, which, 0, 0, *rest)
            while some:
                assert rows <= block
                assert c % step == 0
                assert c < end <= d_out
                done[top : top + rows, c:end] += 1
                if turn == 0:
                    begun[number] |= set(range(top, top + rows))
                yield
                some, turn, at, top, rows, c, end = next_rows(work, which, turn, at, *rest)
            yield

    in_any_order([thread(number) for number in range(n)], luck)
    assert (done == 1).all()
    if n_rows >= OWN_ROWS * n:
        assert sum(len(rows) for rows in begun) == len(set().union(*begun))


def test_a_thread_does_what_a_late_one_left() -> None:
    counter = new_counter(2)
    work, at, end, turn, parts = work_of(counter.ctypes.data, 1, 0, 2), 0, 0, 0, []
    while not parts or at < end:
        at, end, turn = next_part(work, 0, turn, end, 1, 2, 32, 4, 8)
        parts.append((at, end))
    assert parts == [(16, 24), (24, 32), (0, 8), (8, 16), (32, 32)]
    assert next_part(work, 0, 0, 0, 0, 2, 32, 4, 8)[:2] == (32, 32)


KINDS = {  # machine, operation, bits of a weight, rows of bytes of a row, features together
    "float32": (float_program, float_program.LINEAR, 32, 1, 1),
    "int8 for floats": (float_program, float_program.LINEAR8, 8, 2, 4),
    "int4": (float_program, float_program.LINEAR4, 4, 1, INT4_GROUP),
    "int8": (integer_program, integer_program.LINEAR, 8, 1, 4),
    "int8, 16-bit rows": (integer_program, integer_program.LINEAR, 8, 2, 4),
}


@given(
    st.sampled_from(sorted(KINDS)), st.integers(1, 9), st.integers(1, 300), st.integers(1, 3),
    st.integers(1, 4), st.integers(0, 8),
)  # fmt: skip
def test_threads_read_ahead_nothing_but_weights(
    kind: str, n_rows: int, d_out: int, groups: int, threads: int, unread: int
) -> None:
    """What is read ahead is nowhere checked: outside of the matrix the process would end."""
    machine_, operation, bits, n_bytes, group = KINDS[kind]
    d, begin = groups * group, 2**20
    block = 2 * BLOCK if bits == 4 else BLOCK
    whole = -(-d_out // block) * block * d * bits // 8
    program = np.zeros((3, machine.WIDTH), np.int64)
    program[:, 0] = machine.COPY
    wide = n_bytes - 1 if machine_ is integer_program else 0
    program[1, [0, 3, 5, 6, 7, 8, 9]] = operation, begin, n_rows, d, d, d_out, wide
    program[1, machine.UNREAD] = min(unread, n_rows - 1)
    read, last = 0, begin
    for thread in range(threads):
        line, at, end = machine_._next_product.py_func(program, 0, 3, thread, threads)
        assert line == 1
        if at < end:  # each thread its own, one behind the other
            assert last <= at
            assert end <= begin + whole
            read, last = read + end - at, end
    assert whole - block * d * bits // 8 <= read
    assert machine_._next_product.py_func(program, 2, 3, 0, threads) == (3, 0, 0)


@pytest.mark.parametrize(("unread", "thread", "left"), [(0, 0, 7), (2, 0, 0), (2, 1, 7)])
def test_rows_that_nobody_reads_are_zeros(unread: int, thread: int, left: int) -> None:
    """Of five rows of three outputs; the first thread writes what no product does."""
    row, out = np.zeros(machine.WIDTH, np.int64), np.full(15, 7)
    row[[machine.N_ROWS, machine.UNREAD, 8]] = 5, unread, 3
    assert machine.leave_out.py_func(row, out, thread) == 5 - unread
    n = 3 * (5 - unread)
    assert out.tolist() == n * [7] + (15 - n) * [left]


def test_products_of_a_pass_leave_out_what_follows_the_drafts() -> None:
    """Four places, of which one draft and the known token count; other sizes stay as they are."""
    check, n_rows = np.zeros((4, machine.WIDTH), np.int64), machine.N_ROWS
    check[:, 0] = 3, 3, 5, 13
    check[:, n_rows] = 4, 1, 4, 4  # the second is of another number of rows
    tokens, at = np.zeros(4, np.int64), np.array([8, 9, 0, 0])
    seats = np.array([0, 0, tokens.ctypes.data, 0, 0, 0])
    none, drafted = np.zeros(0, np.int64), np.array([5, 6, 7])
    changes = none, none, np.zeros((0, 2), np.int64), np.zeros((1, 0), np.uint8), at
    passes.begin_check(check, (3, 13), 1, 8, drafted, seats, *changes)
    assert check[:, machine.UNREAD].tolist() == [2, 0, 0, 2]
    assert tokens.tolist() == [8, 5, 8, 8]
    passes.begin_check(check, (3, 13), 3, 8, drafted, seats, *changes)
    assert check[:, machine.UNREAD].tolist() == [0, 0, 0, 0]


def test_places_of_a_query_and_of_what_it_reads() -> None:
    """Two rows of four heads on two stored ones, three queries, room for five keys of six."""
    head_of = np.array([0, 1, 0, 1])
    for row, (batch, head, query) in enumerate(np.ndindex(2, 4, 3)):
        at, start, stride = places.py_func(row, head_of, 4, 2, 3, 5, 6)
        assert at == np.ravel_multi_index((batch, query, head, 0), (2, 3, 4, 6))
        assert start == np.ravel_multi_index((batch, 0, head_of[head], 0), (2, 5, 2, 6))
        assert stride == 2 * 6


@pytest.mark.parametrize("taken", [[], [2]])
def test_threads_begin_on_cores_of_their_own_and_are_free_then(
    taken: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three threads on four cores, one of which the system may have taken away meanwhile."""
    moves: dict[int, list[set[int]]] = {}
    begun, free, together = {}, {1, 2, 4, 6}, Barrier(3)

    def move(whose: int, cores: list[int]) -> None:
        assert whose == 0  # the calling thread
        moves.setdefault(get_ident(), []).append(set(cores))
        if set(cores) <= set(taken):
            raise OSError(22, "Invalid argument")

    def run(counter: int, thread: int, threads: int) -> None:
        together.wait(10)  # so no worker does the work of two
        begun[thread] = moves.pop(get_ident())

    monkeypatch.setattr(os, "sched_getaffinity", lambda whose: set(free))
    monkeypatch.setattr(os, "sched_setaffinity", move)
    run_on(3, run)
    assert begun == {0: [{1, 6}, free], 1: [{2}, free], 2: [{4}, free]}


def test_more_threads_than_cores_lie_where_the_system_puts_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[int] = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda whose: {0, 1})
    monkeypatch.setattr(os, "sched_setaffinity", lambda *_: pytest.fail("moved"))
    run_on(3, lambda counter, thread, threads: seen.append(thread))
    assert sorted(seen) == [0, 1, 2]
    monkeypatch.delattr(os, "sched_setaffinity")  # as on other systems than Linux
    run_on(2, lambda counter, thread, threads: seen.append(thread))
    assert sorted(seen) == [0, 0, 1, 1, 2]


def test_the_cores_of_the_caller_stay_as_they_were() -> None:
    before = os.sched_getaffinity(0)
    run_on(2, lambda *_: None)
    assert os.sched_getaffinity(0) == before


@pytest.mark.skipif(os.name != "posix", reason="compiled code tells nobody elsewhere")
def test_python_is_told_at_once_of_the_first_and_of_the_last_and_now_and_then_between() -> None:
    read, write = os.pipe()
    os.set_blocking(read, False)
    state = np.array([1, 1, 0, 0])

    def told(pipe: int = write) -> bytes:
        machine.tell(pipe, state)
        with suppress(BlockingIOError):
            return os.read(read, 9)
        return b""

    try:
        assert told() == b"\1"
        state[2] += 10**12  # as if no time had gone since, however slow this test may be
        assert [told() for _ in range(255)] == [*[b""] * 254, b"\xff"]  # a byte says no more
        state[2] += 10**12
        assert told() == b""
        state[2] -= 2 * 10**12
        assert told(machine.NOBODY) == b""
        assert told() == b"\2"
        state[1], state[2] = 0, state[2] + 10**12
        assert told() == b"\1"
    finally:
        os.close(read)
        os.close(write)


def test_small_models_have_one_thread_and_the_setting_decides(monkeypatch) -> None:
    monkeypatch.delenv("MU_REF_THREADS", raising=False)
    assert n_threads(SMALL - 1) == 1
    monkeypatch.setenv("MU_REF_THREADS", "3")
    assert (n_threads(1), n_threads(SMALL)) == (3, 3)
    for wrong in ("0", "-1", "257", "two", "", "1.5"):
        monkeypatch.setenv("MU_REF_THREADS", wrong)
        with pytest.raises(InputError, match="MU_REF_THREADS must be a whole number from 1 to 256"):
            n_threads(1)
