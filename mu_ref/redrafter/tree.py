"""Beams share beginnings: pack them into a tree, so that each shared token is verified once.

Chapter: `docs/15_drafting.md`; `draw.py` draws one.
"""

from dataclasses import dataclass

import numpy as np

__all__ = ["Tree", "pack", "prefix_owner", "unpack"]


@dataclass(frozen=True, slots=True)
class Tree:
    """Distinct beginnings of all beams of a row, beam by beam, each one a node.

    Rows of the batch have different numbers of nodes. What stands behind a row's own is padding,
    and holds what follows in the batch, as in Apple's code; nothing reads it.
    """

    nodes: np.ndarray  # [batch, n_packed] int, where in the flattened beams a node is first met
    unpacker: np.ndarray  # [batch, beam_width, draft_len + 1] int, the node of every beam's token
    n_nodes: np.ndarray  # [batch] int
    sees: np.ndarray  # [batch, n_packed, n_packed] bool, True for an ancestor or the node itself

    @property
    def depths(self) -> np.ndarray:
        """Distance from the root, [batch, n_packed]."""
        return self.nodes % self.unpacker.shape[2]

    @property
    def valid(self) -> np.ndarray:
        """False at padding, [batch, n_packed]."""
        return np.arange(self.nodes.shape[1]) < self.n_nodes[:, None]

    def packed(self, beams: np.ndarray) -> np.ndarray:
        """Collect what belongs to the nodes: [batch, beam_width, draft_len + 1] -> [batch, n]."""
        return beams.reshape(-1)[self.nodes]


def prefix_owner(beams: np.ndarray) -> np.ndarray:
    r"""Find for every token the first beam that begins in the same way up to it.

    $$o_{ik} = \min \{ j : b_{j,0..k} = b_{i,0..k} \}$$                               (6.4)

    Args:
        beams: [batch, beam_width, n] int.

    Returns:
        [batch, beam_width, n] int.

    Source:
        apple/ml-recurrent-drafter at bd8586b, `tree_attention.py`: O(beam_width² n), no trie.
    """
    same = beams[:, :, None, :] == beams[:, None, :, :]  # [batch, i, j, k]
    return np.argmax(np.logical_and.accumulate(same, axis=3), axis=2)


def pack(beams: np.ndarray) -> Tree:
    """Pack beams into trees, or into a forest where they begin with different tokens.

    Args:
        beams: [batch, beam_width, n] int.

    Returns:
        The trees; n_packed is the largest number of nodes in the batch.

    Source:
        apple/ml-recurrent-drafter at bd8586b, `tree_attention.py`.
    """
    batch, width, n = beams.shape
    owner = prefix_owner(beams)
    is_node = owner == np.arange(width)[:, None]  # the first token of its kind
    n_nodes = is_node.sum(axis=(1, 2))
    # Nodes are numbered as they are met, beam by beam. A token has the number of the token at the
    # same depth of its owner, which is a node.
    number = np.cumsum(is_node.reshape(batch, -1), axis=1) - 1  # [batch, beam_width * n]
    place = (owner * n + np.arange(n)).reshape(batch, -1)
    unpacker = np.take_along_axis(number, place, axis=1).reshape(beams.shape)
    # All nodes of the batch stand in one list; behind its own a row reads on in those of the next.
    met = np.flatnonzero(is_node)
    at = (np.cumsum(n_nodes) - n_nodes)[:, None] + np.arange(n_nodes.max())
    nodes = met[np.minimum(at, len(met) - 1)]  # [batch, n_packed]
    # The ancestors of a node at (w, k) are the nodes of beam w up to k.
    path = unpacker[np.arange(batch)[:, None], nodes // n % width]  # [batch, n_packed, n]
    path = np.where(np.arange(n) <= (nodes % n)[..., None], path, -1)
    sees = (path[..., None] == np.arange(nodes.shape[1])).any(axis=2)
    return Tree(nodes, unpacker, n_nodes, sees)


def unpack(x: np.ndarray, tree: Tree) -> np.ndarray:
    """Give every beam its tokens' values back.

    Args:
        x: [batch, n_packed, ...], one for each node.
        tree: the tree.

    Returns:
        [batch, beam_width, n, ...].
    """
    return x[np.arange(len(x))[:, None, None], tree.unpacker]
