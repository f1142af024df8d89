"""What is said of a model before any time is: counted by hand on models of a few numbers."""

import pytest

from mu_ref.presets import tiny
from npu_sim.errors import WorkloadError
from npu_sim.hardware.presets import npu
from npu_sim.models.hf_config import describe_fields
from npu_sim.program.description import describe
from npu_sim.program.precision import Precision
from npu_sim.program.request import described_program
from npu_sim.report.facts import misfit_json, model_facts

# Two blocks of width 8: q, k, v, o of 8 x 8 and an MLP of 8 x 16 and back, all with biases.
BERT = {
    "model_type": "bert", "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2,
    "num_attention_heads": 2, "vocab_size": 10, "max_position_embeddings": 4, "type_vocab_size": 2,
}  # fmt: skip
MIXTRAL = {
    "model_type": "mixtral", "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1,
    "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 4, "vocab_size": 10,
    "num_local_experts": 4, "num_experts_per_tok": 2,
}  # fmt: skip


def test_a_token_of_an_encoder_reads_its_matrices_vectors_and_rows_of_tables() -> None:
    found = model_facts(describe_fields(BERT, "bert"), Precision(weight_bits=8))
    matrices = 4 * 8 * 8 + 2 * 8 * 16
    biases, norms = 4 * (4 * 8 + 16 + 8), 2 * 8 * (2 + 4)  # of 32 bits; gains of 16
    around = 8 * (2 + 4) + 8 * 8 + 4 * 8  # the norm of the embedding, and the pooler
    assert found["macs_per_token"] == 2 * matrices
    assert "experts" not in found
    rows = found["weight_bytes_per_token"] - 2 * (matrices + biases + norms) - around
    assert 3 * 8 <= rows <= 4 * 8  # a word, a position, and types of tokens
    half = model_facts(describe_fields(BERT, "bert"), Precision(weight_bits=4))
    fewer = found["weight_bytes_per_token"] - half["weight_bytes_per_token"]
    assert fewer == (2 * matrices + 8 * 8 + rows - 8) / 2  # words keep 8 bits
    assert found["n_parameters"] == half["n_parameters"]


@pytest.mark.parametrize(("batch", "expected"), [(1, 2), (2, 4 * (1 - 0.25)), (3, 4 * 0.875)])
def test_experts_are_stored_chosen_and_expected(batch: int, expected: float) -> None:
    """Each row leaves out a given expert half of the time: 2 of 4 are chosen."""
    found = model_facts(describe_fields(MIXTRAL, "moe"), Precision(), batch)
    assert found["experts"] == {"stored": 4, "per_token": 2, "expected_per_step": expected}
    attention, router, head = 4 * 8 * 8, 8 * 4, 8 * 10
    assert found["macs_per_token"] == attention + router + 2 * 3 * 8 * 16 + head


def test_a_token_of_an_encoder_decoder_reads_the_decoder_alone() -> None:
    model = tiny()  # 2 layers, 16 wide, 4 query and 2 kv heads of 4, 61 tokens
    found = model_facts(describe(model), Precision(weight_bits=16, head_weight_bits=16))
    wider = model_facts(describe(model), Precision(weight_bits=8, head_weight_bits=8))
    assert wider["weight_bytes_per_token"] < found["weight_bytes_per_token"]
    assert found["weight_bytes_per_token"] >= 2 * found["macs_per_token"]  # a weight is two bytes
    assert found["weight_bytes_per_token"] < 2 * found["n_parameters"]


def test_a_request_that_does_not_fit_says_what_it_would_store() -> None:
    chip = npu("teaching-npu")
    program = described_program(describe(tiny()), 4, 3, Precision(), 2)
    found = misfit_json(program, chip, "tile", WorkloadError("too much"))
    assert (found["simulated"], found["fits"], found["reason"]) == (True, False, "too much")
    assert (found["n_input"], found["n_output"], found["batch"]) == (4, 3, 2)
    assert (found["model"], found["npu"], found["fidelity"]) == ("tiny", "teaching-npu", "tile")
    assert found["stored_kv_bytes"] > 0
    both = found["stored_weight_bytes"] + found["stored_kv_bytes"]
    assert found["peak_dram_bytes"] == both
