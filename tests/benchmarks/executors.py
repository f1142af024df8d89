"""Time the executors on the shipped agent, interleaved, with medians and ratios.

`python -m tests.benchmarks.executors [ROUNDS]`, from the root of the project. Each round answers
one query with every executor in turn, so that other load on the machine hits all of them.
"""

import os
import statistics
import sys

from mu_ref.settings.agent import load_agent

QUERY = "my eyes hurt at night, make the screen warmer"
SCHEMES = ("float32", "w8a16", "w8a8")


def main(rounds: int) -> None:
    agents = {scheme: load_agent(scheme=scheme) for scheme in SCHEMES}
    encode: dict[str, list[float]] = {scheme: [] for scheme in SCHEMES}
    decode: dict[str, list[float]] = {scheme: [] for scheme in SCHEMES}
    for number in range(rounds + 1):
        for scheme, agent in agents.items():
            answer = agent.ask([QUERY])[0]
            if number:  # the first round fills caches
                encode[scheme].append(1000 * answer.encode_s)
                decode[scheme].append(1000 * answer.decode_s / answer.n_output)
    print(f"mu-nano, one query, {rounds} rounds, load {os.getloadavg()[0]:.2f}")
    print(f"{'executor':<10} {'encode ms':>10} {'ms/token':>10} {'ratio':>7}")
    base = statistics.median(decode["float32"])
    for scheme in SCHEMES:
        token = statistics.median(decode[scheme])
        median = statistics.median(encode[scheme])
        print(f"{scheme:<10} {median:>10.2f} {token:>10.2f} {token / base:>7.2f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
