"""Passes of drafts and checks that compiled code writes by itself; see `Ops.drafted`.

Three scripts are known by then (`replay.py`): of the first drafted token, of any other one, and of
the pass that checks them. One call into compiled code (`run_drafted` of the machines) goes through
them as often as there is room, and tells of each pass as soon as it is done.
"""

from collections.abc import Callable, Collection, Hashable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from mu_ref.ops import Drafting, Pass
from mu_ref.ops.fast.memory import Tensor
from mu_ref.ops.fast.stretches.repeats import RepeatingOps, changes_of, form_of
from mu_ref.ops.fast.stretches.replay import Buffer, Script
from mu_ref.ops.fast.stretches.told import CAN_TELL

__all__ = ["DraftingOps"]

MOST_PLANS = 64

_Program = tuple[np.ndarray, int, np.ndarray]


class DraftingOps(RepeatingOps):
    """Drafts and checks by itself once it knows how.

    Args:
        run_drafted: `run_drafted` of a machine.
        args: see `RepeatingOps`.
    """

    def __init__(self, run_drafted: Callable[..., Any], *args: Any) -> None:
        super().__init__(*args)
        self._run_drafted = run_drafted
        self._plans: dict[Hashable, Any] = {}
        self._drafters: dict[Hashable, _Drafter] = {}

    def drafted(
        self, how: Drafting, hidden: Tensor, token: int, n_left: int, stops: Collection[int]
    ) -> Iterator[Pass]:
        """Run three scripts that are known by now in one call into compiled code."""
        self._finish()
        begin = how.inputs(0)
        found = self._script_of(how.check, how.grown, how.read, begin)
        caches = [x for layer in how.grown for x in (layer.k, layer.v)]
        if found is None or None in caches or not CAN_TELL:
            return
        check, (n_slots, memory) = found
        room = min([*check.most[:1], *(x.room for x in caches)])
        n_places = min(how.n_places, room - n_slots + 1)
        if n_places < 1 or (plan := self._plan(check, how, n_places, n_slots, memory)) is None:
            return
        n_draft = begin[0].shape[1] - 1
        drafter = self._drafter(how.draft, hidden, n_draft)
        of_rows = form_of(hidden)._replace(shape=(1, n_draft + 1, hidden.shape[-1]))
        if drafter is None or check.results[0] != of_rows:
            return
        self.flush()  # the hidden state is there from now on, and buffers may be filled
        taken, checked = self._like(hidden), self._results(check)
        taken.block.memory[:] = hidden.block.memory
        drafter.read(taken)
        changes, steady = plan
        for buffer in steady:
            buffer.fill(begin[buffer.source])
        rows = check.at((n_slots, memory), _addresses([*caches, *how.read, *checked])).copy()
        seats = [*drafter.tokens, check.token, *_addresses([*checked, taken])]
        n_passes = n_places  # each fills a slot at least
        written = np.zeros((n_passes, n_draft + 1), np.int64)
        counted = np.zeros((n_passes, 3), np.int64)
        sizes = hidden.shape[-1], checked[1].shape[-1], drafter.beam[0][1].shape[-1]
        call = self._begin(
            self._run_drafted, n_passes,
            *drafter.programs, _program(check, rows), np.array(seats, np.int64), sizes,
            drafter.bound, drafter.addresses, drafter.scores,
            *changes, np.array(sorted(stops), np.int64),
            np.array([token, n_left, 0, 0], np.int64), np.zeros(n_draft, np.int64),
            written, counted,
        )  # fmt: skip
        self._running = call
        try:
            for i, n in enumerate(call.tokens()):
                n_drafted, *spent = counted[i].tolist()
                yield Pass(written[i, :n].tolist(), n_drafted, taken, *(1e-6 * s for s in spent))
        finally:
            call.end()
            if self._running is call:
                self._running = None
            n_written = int(call.chosen[call.chosen > 0].sum())
            self._grow(how.grown, check, n_slots - n_draft - 1 + n_written)

    def _drafter(self, what: Hashable, hidden: Tensor, n: int) -> "_Drafter | None":
        """Find how n tokens are drafted behind a hidden state, or remember it."""
        key = what, form_of(hidden), n, self.n_threads
        found = self._drafters.get(key)
        if found is not None and found.known is self._scripts.known and found.stands:
            return found
        tokens = (np.zeros((1, 1), np.int64),)
        first = self._script_of(what, (), [hidden], tokens)
        if first is None or not first[0].ready(tokens, first[1]):
            return None
        beam = [self._results(first[0]) for _ in range(n)]
        state = beam[0][0]
        # one drafted token has none that follows
        following = first if n == 1 else self._script_of(what, (), [hidden, state], tokens)
        if following is None or not following[0].ready(tokens, following[1]):
            return None
        if form_of(state) != following[0].results[0]:
            return None
        programs, captured = [], []
        for (script, sizes), values in zip(
            (first, following),
            ([hidden, *beam[0]], [hidden, *beam[0]] if n == 1 else [hidden, state, *beam[1]]),
            strict=True,
        ):
            rows = script.at(sizes, _addresses(values))
            captured.append((script, rows))
            programs.append(_program(script, rows.copy()))
        bounds = [[hidden, x[0], *y] for x, y in pairwise([*beam, beam[-1]])]
        table = np.array([_addresses(values) for values in bounds], np.int64)
        addresses = np.ascontiguousarray(table[:, following[0].which])
        names_hidden = [
            *((rows.reshape(-1), script.where[script.which == 0])
              for (script, _), (rows, *_) in zip(captured, programs, strict=True)),
            (addresses.reshape(-1), np.flatnonzero(np.tile(following[0].which == 0, len(table)))),
        ]  # fmt: skip
        while len(self._drafters) >= MOST_PLANS:
            del self._drafters[next(iter(self._drafters))]
        self._drafters[key] = made = _Drafter(
            known=self._scripts.known,
            captured=tuple(captured),
            beam=beam,
            programs=(programs[0], programs[1]),
            tokens=(first[0].token, following[0].token),
            bound=following[0].where.copy(),
            addresses=addresses,
            names_hidden=names_hidden,
            scores=np.array(_addresses([scores for _, scores in beam]), np.int64),
        )
        return made

    def _plan(
        self, script: Script, how: Drafting, n_places: int, n_slots: int, memory: int
    ) -> tuple[tuple[np.ndarray, ...], list[Buffer]] | None:
        """Say what changes in a script with the slots, or remember it; None if it is not ready.

        And which buffers hold what does not, but for the tokens.
        """
        where = tuple(buffer.address for buffer in script.buffers)
        key, last = (id(script), where, how.alike, n_places), (n_slots + n_places - 1, memory)
        if not (script.knows((n_slots, memory)) and script.knows(last)):
            return None
        if key not in self._plans:
            if not script.ready(how.inputs(n_places - 1), last):  # which needs the most room
                return None
            while len(self._plans) >= MOST_PLANS:
                del self._plans[next(iter(self._plans))]
            changes = changes_of(script, [how.inputs(i) for i in range(n_places)])
            changing = changes[2][:, 0].tolist()  # addresses
            steady = [b for b in script.buffers if b.source and b.address not in changing]
            # with the script, so that its id stays its own
            self._plans[key] = script, (changes, steady)
        return self._plans[key][1]


def _addresses(values: list[Any]) -> list[int]:
    return [x.block.address for x in values]


def _program(script: Script, rows: np.ndarray) -> _Program:
    """Rows, their number and scalars."""
    return rows, len(rows), np.frombuffer(script.scalars, np.float64)


@dataclass(frozen=True, slots=True)
class _Drafter:
    """How a beam is drafted: what `run_drafted` is told of it."""

    known: object  # the scripts when it was made
    captured: tuple[tuple[Script, np.ndarray], ...]  # those it is made of, and their rows then
    beam: list[tuple[Tensor, ...]]  # state and scores of each token
    programs: tuple[_Program, _Program]  # of the first token, and of those that follow
    tokens: tuple[int, int]  # addresses where they read a token
    bound: np.ndarray
    addresses: np.ndarray
    names_hidden: list[tuple[np.ndarray, np.ndarray]]  # flat arrays, and where they say its address
    scores: np.ndarray

    @property
    def stands(self) -> bool:
        """Are the scripts still what they were?"""
        return all(script.rows is rows for script, rows in self.captured)

    def read(self, hidden: Tensor) -> None:
        """Let the programs read this hidden state, the first value that they are bound to."""
        for numbers, places in self.names_hidden:
            numbers[places] = hidden.block.address
