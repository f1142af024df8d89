"""What the machines share: parts of threads, places of attention, how many threads there are."""

import numpy as np
import pytest

from mu_ref.errors import InputError
from mu_ref.kernels.machine import places, share
from mu_ref.kernels.threads import SMALL, n_threads


@pytest.mark.parametrize("n", [0, 1, 7, 32, 33, 100])
@pytest.mark.parametrize(("n_threads", "step"), [(1, 1), (2, 1), (3, 4), (5, 32)])
def test_threads_share_all_places_in_whole_steps(n: int, n_threads: int, step: int) -> None:
    parts = [share.py_func(n, thread, n_threads, step) for thread in range(n_threads)]
    ends = [0, *(last for _, last in parts)]
    assert [first for first, _ in parts] == ends[:-1]
    assert ends[-1] == n
    assert all(end % step == 0 for end in ends if end < n)
    sizes = [-(-(last - first) // step) for first, last in parts]
    assert max(sizes) - min(sizes) <= 1


def test_places_of_a_query_and_of_what_it_reads() -> None:
    """Two rows of four heads on two stored ones, three queries, room for five keys of six."""
    head_of = np.array([0, 1, 0, 1])
    for row, (batch, head, query) in enumerate(np.ndindex(2, 4, 3)):
        at, start, stride = places.py_func(row, head_of, 4, 2, 3, 5, 6)
        assert at == np.ravel_multi_index((batch, query, head, 0), (2, 3, 4, 6))
        assert start == np.ravel_multi_index((batch, 0, head_of[head], 0), (2, 5, 2, 6))
        assert stride == 2 * 6


def test_small_models_have_one_thread_and_the_setting_decides(monkeypatch) -> None:
    monkeypatch.delenv("MU_REF_THREADS", raising=False)
    assert n_threads(SMALL - 1) == 1
    monkeypatch.setenv("MU_REF_THREADS", "3")
    assert (n_threads(1), n_threads(SMALL)) == (3, 3)
    for wrong in ("0", "-1", "257", "two", "", "1.5"):
        monkeypatch.setenv("MU_REF_THREADS", wrong)
        with pytest.raises(InputError, match="MU_REF_THREADS must be a whole number from 1 to 256"):
            n_threads(1)
