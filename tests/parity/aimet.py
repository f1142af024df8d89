"""`python -m tests.parity.aimet [N]`: what AIMET's float32 reading of our scales changes.

Our scales are binary64, and AIMET reads them as float32. Rounds every activation's scale to float32
and runs mu-nano on N validation queries (25) both ways: how many scales change, at how many sites
integers differ although all that the site reads is equal, and how many answers are equal.
"""

import sys
from dataclasses import dataclass, replace

import numpy as np

from mu_ref.executors import shipped_weights
from mu_ref.golden.record import Entry, record_run
from mu_ref.integers.store import IntegerModel, load_integers
from mu_ref.ops.integer import IntegerOps
from mu_ref.settings.agent import load_agent
from mu_ref.settings.catalog import DATA
from mu_ref.settings.queries.labelled import evenly_spread, read_queries


@dataclass
class Found:
    """Of one scheme."""

    n_sites: int
    n_scales: int  # that float32 changes
    sites: set[str]  # whose own arithmetic gives other integers
    n_queries: int
    n_same: int  # queries whose tokens are equal


def in_float32(model: IntegerModel) -> IntegerModel:
    """Return the model as AIMET reads it; scales of weights are float32 already."""
    rounded = {
        site: replace(encoding, scale=float(np.float32(encoding.scale)))
        for site, encoding in model.activations.items()
    }
    return replace(model, activations=rounded)


def differing(ours: dict[str, Entry], theirs: dict[str, Entry]) -> set[str]:
    """Sites that differ in a call though nothing that they read does."""
    unequal = {
        key
        for key, entry in ours.items()
        if key in theirs and not np.array_equal(entry.array, theirs[key].array)
    }
    own = {key for key in unequal if not unequal & set(ours[key].inputs)}
    return {key.rsplit("/", 1)[1] for key in own}


def measure(scheme: str, n: int) -> Found:
    agent, model = load_agent(scheme=scheme), load_integers(shipped_weights(scheme))
    rounded = in_float32(model)
    changed = [s for s, e in model.activations.items() if e != rounded.activations[s]]
    found = Found(len(model.activations), len(changed), set(), 0, 0)
    executors = IntegerOps(model), IntegerOps(rounded)
    start = np.array([[agent.model.bos_id]])
    for item in evenly_spread(read_queries(DATA / "validation.jsonl"), n):
        source = np.array([agent.source_tokens(item.query)])
        valid = np.ones(source.shape, bool)
        runs = [record_run(ops, agent.model, source, valid, start, 32).entries for ops in executors]
        found.sites |= differing(*runs)
        written = [
            [e.array.item() for k, e in r.items() if k.endswith("/next_tokens")] for r in runs
        ]
        found.n_queries += 1
        found.n_same += written[0] == written[1]
    return found


if __name__ == "__main__":
    for name in ("w8a16", "w8a8"):
        of = measure(name, int(sys.argv[1]) if len(sys.argv) > 1 else 25)
        print(
            f"{name:6} {of.n_scales} of {of.n_sites} scales change; integers differ at "
            f"{len(of.sites)} sites; {of.n_same} of {of.n_queries} answers are equal"
        )
