"""Passes of drafts and checks on the integer machine; see `Ops.drafted`."""

import numpy as np

from mu_ref.kernels import integers
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
from mu_ref.kernels.integer_program import LINEAR, walk
from mu_ref.kernels.machine import array_at, wait

__all__ = ["run_drafted"]

I16 = np.int16
PRODUCTS = (LINEAR,)


@kernel
def run_drafted(
    first, following, check, seats, sizes, bound, addresses, draft_scores, places, growth, buffers,
    fills, stops, at, drafted, written, counted, chosen, go_on, pipe, counter, thread, n_threads,
):  # fmt: skip
    """Twin of `float_passes.run_drafted`, where its arguments are told, for integers."""
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
                of_draft = array_at(draft_scores[n], n_draft_tokens, I16)
                drafted[n] = integers.likeliest(of_draft)
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
            scores = array_at(seats[SCORES_AT], (n + 1) * n_tokens, I16)
            kept, goes_on = 0, True
            while goes_on:
                of_token = scores[kept * n_tokens : (kept + 1) * n_tokens]
                new = integers.likeliest(of_token)
                written[number, kept] = new
                goes_on = kept < n and new == drafted[kept] and new not in stops
                kept += 1
            hidden = array_at(seats[HIDDEN], kept * d, I16)
            array_at(seats[TAKEN], d, I16)[:] = hidden[(kept - 1) * d :]
            told = stops, counted, began, chosen, go_on, pipe
            settle_pass(number, n, kept, written, at, len(fills), *told)
        met += 1
        wait(counter, met, n_threads)
        if go_on[1] == 0:
            break
