"""`python -m tests.golden` writes the golden folders again; with `--models` the tiny model first.

Run it when the weights of mu-nano or the meaning of an integer has changed, and commit the result.
"""

import argparse
from pathlib import Path

import numpy as np

from mu_ref.executors import shipped_weights
from mu_ref.golden.write import Tokens, write_layers, write_operations, write_run
from mu_ref.redrafter.beams import Search
from mu_ref.settings.agent import load_agent

from .tiny import model_file, write_models

__all__ = ["HERE", "RECIPES", "write"]

HERE = Path(__file__).parent
QUERY = "bluetooth off"
N_NEW = 8  # tokens of the tiny model; the last steps are longer than its RoPE base length


def _text() -> Tokens:
    """One text, padded."""
    source = np.random.default_rng(5).integers(3, 40, (1, 9))
    return Tokens(source, np.arange(9)[None] < 7, np.array([[1]]))


def _tiny(folder: Path, scheme: str) -> int:
    return write_run(folder, model_file(scheme), scheme, _text(), N_NEW)


def _tiny_drafts(folder: Path, scheme: str) -> int:
    """Drafts of one beam, which need no float to be chosen."""
    weights, drafter = model_file(scheme), model_file(scheme, drafter=True)
    search = Search(beam_width=1, draft_len=4)
    return write_run(folder, weights, scheme, _text(), N_NEW, drafter, search)


def _tiny_layers(folder: Path, scheme: str) -> int:
    return write_layers(folder, model_file(scheme), scheme)


def _mu_nano(folder: Path, scheme: str) -> int:
    agent = load_agent()
    source = np.array([agent.source_tokens(QUERY)])
    read = Tokens(source, np.ones(source.shape, bool), np.array([[agent.model.bos_id]]))
    about = {"query": QUERY}
    return write_run(folder, shipped_weights(scheme), scheme, read, about=about)


RECIPES = {
    "ops": write_operations,
    "tiny-w8a16": lambda folder: _tiny(folder, "w8a16"),
    "tiny-w8a8": lambda folder: _tiny(folder, "w8a8"),
    "tiny-float32": lambda folder: _tiny(folder, "float32"),
    "tiny-layers-w8a8": lambda folder: _tiny_layers(folder, "w8a8"),
    "tiny-drafts-w8a16": lambda folder: _tiny_drafts(folder, "w8a16"),
    "tiny-drafts-w8a8": lambda folder: _tiny_drafts(folder, "w8a8"),
    "mu-nano-w8a16": lambda folder: _mu_nano(folder, "w8a16"),
}


def write(name: str, folder: Path) -> int:
    """Write one golden folder.

    Args:
        name: one of `RECIPES`.
        folder: where.

    Returns:
        Bytes that were written.
    """
    return RECIPES[name](folder)


def main() -> None:
    """Write every folder beside this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", action="store_true", help="make the tiny model anew, too")
    if parser.parse_args().models:
        write_models()
    total = 0
    for name in RECIPES:
        n_bytes = write(name, HERE / name)
        total += n_bytes
        print(f"{name:20} {n_bytes / 1e6:.2f} MB")
    print(f"{'together':20} {total / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
