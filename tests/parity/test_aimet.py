"""What `docs/onnx.md` and `to_aimet` say of AIMET's float32 reading of our scales."""

import pytest
from parity.aimet import measure


@pytest.mark.parametrize(("scheme", "n_scales"), [("w8a16", 218), ("w8a8", 216)])
def test_float32_changes_most_scales_few_sites_and_no_answer(scheme: str, n_scales: int) -> None:
    found = measure(scheme, 1)
    assert (found.n_sites, found.n_scales) == (232, n_scales)
    assert 0 < len(found.sites) <= 10
    assert found.n_same == found.n_queries == 1
