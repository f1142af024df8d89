"""Passes of drafts and checks on the float machine; see `Ops.drafted`."""

import numpy as np

from mu_ref.kernels import floats
from mu_ref.kernels.compiled import kernel
from mu_ref.kernels.drafts.passes import (
    FIRST,
    HIDDEN,
    LEFT,
    SCORES_AT,
    TAKEN,
    TOKEN,
    begin_check,
    next_draft,
    settle_pass,
    ticks,
)  # fmt: skip
from mu_ref.kernels.float_program import LINEAR, LINEAR4, LINEAR8, walk
from mu_ref.kernels.machine import array_at, wait

__all__ = ["run_drafted"]

F32 = np.float32
PRODUCTS = LINEAR, LINEAR4, LINEAR8


@kernel
def run_drafted(
    first, following, check, seats, sizes, bound, addresses, draft_scores, places, growth, buffers,
    fills, stops, at, drafted, written, counted, chosen, go_on, pipe, counter, thread, n_threads,
):  # fmt: skip
    """Draft a beam, check it, keep what the model would have written; again, as chosen has room.

    first, following and check are rows, their number and scalars of three programs: of the first
    drafted token, of any other one, and of the pass over the known token and as many others as
    `drafted` has room for. seats are addresses (`passes.FIRST`), sizes the numbers of a hidden
    state, of a token's scores, and of its scores by the drafter, which lie at draft_scores. What
    changes in `following` from token to token, bound and addresses say as in `machine.renew`; what
    changes in `check`, the next four (`passes.begin_check`). Behind one of `stops` nothing is
    drafted or written. `at`: `passes.settle_pass`. written [n_passes, len(drafted) + 1] are the
    tokens of each pass, counted [n_passes, 3] how many were drafted, and microseconds of drafting
    and of checking; chosen, how many were written. Through the pipe: `machine.tell`.
    """
    met, (d, n_tokens, n_draft_tokens) = 0, sizes
    for number in range(len(chosen)):
        n, began = 0, ticks()
        most = min(len(drafted), at[LEFT] - 1)
        while n < most and (n == 0 or drafted[n - 1] not in stops):
            if thread == 0 and n == 0:
                array_at(seats[FIRST], 1, np.int64)[0] = at[TOKEN]
            elif thread == 0:
                next_draft(following[0], n, drafted[n - 1], seats, bound, addresses)
            rows, n_rows, scalars = first if n == 0 else following
            met = walk(rows, n_rows, scalars, met, counter, thread, n_threads) + 1
            wait(counter, met, n_threads)
            if thread == 0:
                of_draft = array_at(draft_scores[n], n_draft_tokens, F32)
                drafted[n] = floats.likeliest(of_draft)
            met += 1
            wait(counter, met, n_threads)
            n += 1
        counted[number, 1], began = ticks() - began, ticks()
        if thread == 0:
            change = seats, places, growth, buffers, fills, at
            begin_check(check[0], PRODUCTS, n, at[TOKEN], drafted, *change)
        rows, n_rows, scalars = check
        met = walk(rows, n_rows, scalars, met, counter, thread, n_threads) + 1
        wait(counter, met, n_threads)
        if thread == 0:
            scores = array_at(seats[SCORES_AT], (n + 1) * n_tokens, F32)
            kept, goes_on = 0, True
            while goes_on:
                of_token = scores[kept * n_tokens : (kept + 1) * n_tokens]
                new = floats.likeliest(of_token)
                written[number, kept] = new
                goes_on = kept < n and new == drafted[kept] and new not in stops
                kept += 1
            hidden = array_at(seats[HIDDEN], kept * d, F32)
            array_at(seats[TAKEN], d, F32)[:] = hidden[(kept - 1) * d :]
            told = stops, counted, began, chosen, go_on, pipe
            settle_pass(number, n, kept, written, at, len(fills), *told)
        met += 1
        wait(counter, met, n_threads)
        if go_on[1] == 0:
            break
