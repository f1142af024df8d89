"""Faults of similar tools that were reported in public, with models that show them.

Each test names the report. Right values are counted by hand from the shapes that the report gives.
"""

import pytest

from npu_sim.models.hf_config import describe_fields
from npu_sim.models.neutral_json import description_of
from npu_sim.program.call import call_program
from npu_sim.program.precision import Precision


def cache_bytes(fields: dict, n_context: int) -> int:
    """Bytes of keys and values that a decode step reads: all slots, and those of its own token."""
    program = call_program(describe_fields(fields, "m"), "decode", 1, n_context, 0, Precision())
    return sum(t.n_bytes for op in program.ops if not op.is_layout
               for t in op.inputs if t.role == "kv")  # fmt: skip


LLAMA_3_8B = {"model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336,
              "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
              "vocab_size": 128256}  # fmt: skip


def test_the_cache_has_key_heads_and_not_query_heads() -> None:
    """`load_kv_cache` multiplied by `num_attention_heads`: four times too much for Llama 3 8B.

    Source: https://github.com/hahnyuan/LLM-Viewer/issues/12
    """
    assert cache_bytes(LLAMA_3_8B, 1000) == 32 * 2 * 8 * 128 * 1000 * 2
    one_head = LLAMA_3_8B | {"num_key_value_heads": 1}
    assert cache_bytes(LLAMA_3_8B, 1000) == 8 * cache_bytes(one_head, 1000)


@pytest.mark.parametrize(
    ("fields", "head_dim", "quotient"),
    [
        # Qwen3-4B, Mistral-Small-24B and Gemma-3-12B, of the reports
        ({"model_type": "qwen3", "hidden_size": 2560, "num_hidden_layers": 36,
          "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128}, 128, 80),
        ({"model_type": "mistral", "hidden_size": 5120, "num_hidden_layers": 40, "head_dim": 128,
          "num_attention_heads": 32, "num_key_value_heads": 8, "sliding_window": None}, 128, 160),
        ({"model_type": "gemma3_text", "hidden_size": 3840, "num_hidden_layers": 48,
          "num_attention_heads": 16, "num_key_value_heads": 8}, 256, 240),
    ],
)  # fmt: skip
def test_heads_are_as_wide_as_the_file_or_the_family_says(fields, head_dim, quotient) -> None:
    """Heads were taken to be hidden_size / num_attention_heads wide.

    Source: https://github.com/LMCache/LMCache/issues/688,
    https://github.com/NVIDIA/Model-Optimizer/issues/2482
    """
    assert fields["hidden_size"] // fields["num_attention_heads"] == quotient != head_dim
    layers = fields["num_hidden_layers"]
    assert cache_bytes(fields, 100) == layers * 2 * 8 * head_dim * 100 * 2


def test_a_file_that_says_little_means_the_defaults_of_its_family() -> None:
    """Gemma 3 4B's file has five fields of its text part; another size's heads were put in.

    Source: https://github.com/ddalcu/mlx-serve/pull/46 (8 query heads, 4 key heads of width 256)
    """
    fields = {"model_type": "gemma3", "text_config": {
        "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window": 1024}}  # fmt: skip
    found = describe_fields(fields, "gemma-3-4b-it")
    stack = found.model.stacks["decoder"]
    assert (stack.n_heads, stack.n_kv_heads, stack.d_head) == (8, 4, 256)
    assert (stack.window, sum(stack.windowed_layers)) == (1024, 34 - 34 // 6)
    assert found.n_parameters == 3_880_263_168  # as transformers counts the text part


def test_the_cache_of_a_neutral_model_has_its_own_width() -> None:
    """The width of the cache was taken from `embedding_length`, whatever the key heads.

    Source: https://github.com/KolosalAI/model-memory-calculator/issues/2
    """
    fields = {"family": "decoder", "n_enc_layers": 0, "n_dec_layers": 3, "d_model": 640,
              "d_ff": 64, "gated": True, "n_heads": 4, "n_kv_heads": 1, "d_head": 256,
              "vocab_size": 100, "tied": True, "lm_head": "last"}  # fmt: skip
    program = call_program(description_of("m", fields), "prefill", 7, 7, 0, Precision())
    written = sum(op.output.n_bytes for op in program.ops if op.kind == "append")
    assert written == 3 * 2 * 1 * 256 * 7 * 2
