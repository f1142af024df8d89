"""How many steps of the shipped agent the bound on quantization covers.

`python -m tests.benchmarks.bound [QUERIES]`, from the root of the project: validation queries with
the calls that float32 writes, both schemes.
"""

import sys

import numpy as np

from mu_ref.integers.store import load_integers
from mu_ref.model import mu
from mu_ref.ops.integer import IntegerOps
from mu_ref.quantize.bound import margin_bound
from mu_ref.settings.agent import load_agent
from mu_ref.settings.catalog import DATA
from mu_ref.settings.queries.labelled import read_queries
from mu_ref.weights import load_weights


def main(n_queries: int) -> None:
    agent = load_agent()
    model, weights = load_weights(DATA / "mu-nano.safetensors")
    items = read_queries(DATA / "validation.jsonl")
    items = items[:: len(items) // n_queries][:n_queries]
    for scheme in ("w8a16", "w8a8"):
        ops = IntegerOps(load_integers(DATA / f"mu-nano-{scheme}.safetensors"))
        steps = covered = wrong = same = 0
        for answer in agent.ask([item.query for item in items]):
            source = np.array([agent.source_tokens(answer.query)])
            target = np.array([[model.bos_id, *answer.tokens[:-1]]])
            bound = margin_bound(model, weights, ops, source, target)
            full = (np.ones(source.shape, bool), np.ones(target.shape, bool))
            logits = mu.forward(ops, model, source, full[0], target, full[1])
            agrees = ops.argmax(logits, "head.argmax") == bound.best
            steps += agrees.size
            same += int(agrees.sum())
            covered += int(bound.covered.sum())
            wrong += int((bound.covered & ~agrees).sum())
        print(f"{scheme}: {steps} steps, {covered} covered, {same} alike, {wrong} covered yet not")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 50)
