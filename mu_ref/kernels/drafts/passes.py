"""What a pass of drafts and checks does besides its operations, for both machines.

Who runs them: `float_passes.py` and `integer_passes.py`; who asks: `drafting.py` of
`mu_ref/ops/fast/stretches/`.
"""

import os

import numpy as np
from numba import types

from mu_ref.kernels.compiled import kernel
from mu_ref.kernels.machine import N_ROWS, UNREAD, array_at, tell

__all__ = [
    "CHECK", "FIRST", "FOLLOWING", "HIDDEN", "LAST", "LEFT", "PAST", "SCORES_AT", "TAKEN", "TOKEN",
    "begin_check", "next_draft", "settle_pass", "ticks",
]  # fmt: skip

# places in `seats`: where tokens are read, where the hidden states and scores of a pass lie, and
# where the drafter reads the hidden state
FIRST, FOLLOWING, CHECK, HIDDEN, SCORES_AT, TAKEN = range(6)
TOKEN, LEFT, PAST, LAST = range(4)  # places in `at`, see `settle_pass`

if os.name == "posix":
    _clock = types.ExternalFunction("clock", types.int64())

else:

    @kernel
    def _clock():
        """No time: nobody asks."""
        return np.int64(0)


@kernel
def next_draft(following, n, token, seats, bound, addresses):
    """Let `following` read the token that was drafted before, and the state before it."""
    array_at(seats[FOLLOWING], 1, np.int64)[0] = token
    flat = following.ravel()
    for i in range(len(bound)):
        flat[bound[i]] = addresses[n - 1, i]


@kernel
def begin_check(check, products, n, token, drafted, seats, places, growth, buffers, fills, at):
    """Let `check` read the known token and n drafted ones, which stand behind at[PAST] slots.

    Args:
        check: [n_rows, WIDTH], for at[LAST] slots; it becomes that for at[PAST].
        products: operations that leave out what follows the drafted tokens; others do not.
        n: drafted tokens.
        token: the known one.
        drafted: the others.
        seats: where they are read.
        places: in the flat program, where a size stands that grows with every slot.
        growth: by how much.
        buffers: [n, 2], address and bytes of each input that depends on the slots.
        fills: [n_slots, bytes of all of them], what they become.
        at: see `settle_pass`.
    """
    tokens = array_at(seats[CHECK], len(drafted) + 1, np.int64)
    tokens[:] = token
    tokens[1 : n + 1] = drafted[:n]
    for line in range(len(check)):
        if check[line, 0] in products and check[line, N_ROWS] == len(tokens):
            check[line, UNREAD] = len(drafted) - n
    flat, more = check.ravel(), at[PAST] - at[LAST]
    for i in range(len(places)):
        flat[places[i]] += more * growth[i]
    at[LAST], start = at[PAST], 0
    for i in range(len(buffers)):
        to = array_at(buffers[i, 0], buffers[i, 1], np.uint8)
        to[:] = fills[at[PAST], start : start + len(to)]
        start += len(to)


@kernel
def settle_pass(number, n, kept, written, at, n_slots, stops, counted, began, chosen, go_on, pipe):
    """Note what a pass wrote, tell of it, and say in go_on[1] whether another one follows.

    `at` holds the last token, the tokens that may still be written, the slots filled since the
    start, and those that the rows of `check` are for; go_on: see `machine.settle`.
    """
    at[TOKEN], at[PAST] = written[number, kept - 1], at[PAST] + kept
    at[LEFT] -= kept
    counted[number, 0], counted[number, 2] = n, _clock() - began
    chosen[number] = kept
    ended = at[LEFT] <= 0 or at[PAST] >= n_slots or number + 1 == len(chosen)
    for i in range(kept):
        ended = ended or written[number, i] in stops
    if go_on[0] == 0 or ended:
        go_on[1] = 0
    tell(pipe, go_on)


@kernel
def ticks():
    """Processor time of this process, in microseconds."""
    return _clock()
