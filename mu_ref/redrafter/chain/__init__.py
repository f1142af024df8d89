"""One row, one beam: drafts are a chain, and a pass over them needs no tree.

All passes have one width then, drafts that ended early being filled up, so that an executor may
know them, and do many without Python between them (`Ops.drafted`). Chapter: `docs/15_drafting.md`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mu_ref import generate
from mu_ref.config import ModelConfig
from mu_ref.generate.step import check_step, check_stretch, places_ahead
from mu_ref.model.cache import Cache, Memory
from mu_ref.model.decoder import place
from mu_ref.ops import Drafting, Ops, Pass, Value
from mu_ref.redrafter.beams import Drafts, Proposer, draft_one_beam, stretch_of

__all__ = ["Chain"]


@dataclass(frozen=True, slots=True)
class Chain:
    """What the passes of one row have in common."""

    ops: Ops
    model: ModelConfig
    proposer: Proposer
    memory: Memory | None

    @classmethod
    def of(
        cls, ops: Ops, model: ModelConfig, drafts: Drafts, memory: Memory | None, prompt: np.ndarray
    ) -> "Chain | None":
        """Return it where one row is written with one beam, else None."""
        one = isinstance(drafts, Proposer) and drafts.way is draft_one_beam and len(prompt) == 1
        return cls(ops, model, drafts, memory) if one else None  # type: ignore[arg-type]

    @property
    def width(self) -> int:
        """Tokens of a pass: the known one, and the drafted ones."""
        return self.proposer.search.draft_len + 1

    def check(self, cache: Cache, beams: np.ndarray) -> tuple[Value, Value] | None:
        """Compute a pass over one beam [1, 1, n], filled up behind it.

        Args:
            cache: of the row; grows by the width.
            beams: the known token, and what was drafted.

        Returns:
            Hidden states [1, width, d_model] and scores [1, width, vocab_size], of which the first
            n count; None where so many tokens would not stand as in plain decoding.
        """
        tokens = np.full((1, self.width), beams[0, 0, 0])
        tokens[0, : beams.shape[2]] = beams[0, 0]
        hides = self.model.mask_decoder_pads and (tokens == self.model.pad_id).any()
        if hides or places_ahead(self.model, self.memory, cache, tokens, 1) is None:
            return None
        return check_step(self.ops, self.model, tokens, self.memory, cache)

    def passes(self, cache: Cache, hidden: Value, token: int, n_left: int) -> Iterator[Pass]:
        """Yield the passes that the executor writes by itself.

        Args:
            cache: of the row; its values grow, and `note` adds the tokens.
            hidden: [1, 1, d_model], of the last token in the cache.
            token: the one behind it.
            n_left: tokens that may be written.

        Yields:
            Passes, up to the end of the text or as far as the executor can go.
        """
        ends = set(self.model.eos_ids)
        pads = {self.model.pad_id} if self.model.mask_decoder_pads else set()
        tokens = np.full((1, self.width), token)
        n_places = min(n_left, generate.AHEAD)
        found = places_ahead(self.model, self.memory, cache, tokens, n_places)
        if n_places < 1 or found is None or token in pads:
            return
        n_slots = cache.tokens.shape[1]
        follows = cache.valid.all() and (cache.positions == np.arange(n_slots)).all()
        how = Drafting(
            draft=stretch_of(self.proposer.drafter, self.model),
            check=check_stretch(self.model),
            grown=cache.layers,
            read=[] if self.memory is None else [x for m in self.memory.layers for x in (m.k, m.v)],
            inputs=found,
            n_places=n_places,
            # what stands in a row without gaps is the same for all rows
            alike=(n_slots, self.width) if follows else object(),
        )
        yield from self.ops.drafted(how, hidden, token, n_left, ends | pads)

    def note(self, cache: Cache, fed: Sequence[int]) -> None:
        """Add to the cache the tokens whose keys it has by now."""
        if fed:
            place(self.model, np.array([fed]), np.ones((1, len(fed)), bool), cache)
