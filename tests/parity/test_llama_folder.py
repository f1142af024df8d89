"""A LLaMA's folder and a drafter of Apple's code: the command writes what theirs wrote."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from parity.redrafter.comparison import Golden, read
from parity.redrafter.models import llama_of
from safetensors.numpy import save_file
from typer.testing import CliRunner

from mu_ref.cli import app
from mu_ref.errors import ConfigError, WeightsError
from mu_ref.executors import load_model
from mu_ref.model import mu
from mu_ref.model.decoder import decode
from mu_ref.readers import config_from_fields, read_checkpoint

DATA = Path(__file__).parent / "redrafter" / "data"
SMALL = {"model_type": "llama", "vocab_size": 16, "hidden_size": 8, "intermediate_size": 8,
         "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1,
         "max_position_embeddings": 32}  # fmt: skip


def theirs(name: str) -> str:
    """The name in a state dict, of which the golden file keeps the dots as underscores."""
    inner = r"model_layers_([0-9]+)_(self_attn|mlp)_(\w+)_weight"
    name = re.sub(inner, r"model.layers.\1.\2.\3.weight", name)
    name = re.sub(r"model_layers_([0-9]+)_(\w+)_weight", r"model.layers.\1.\2.weight", name)
    name = re.sub(r"model_(embed_tokens|norm)_weight", r"model.\1.weight", name)
    name = re.sub(r"resblock([0-9])_linear_", r"lm_head.\1.linear.", name)
    name = name.replace("vocab_head_weight", "lm_head.2.weight")
    name = name.replace("lm_head_weight", "lm_head.weight")
    return re.sub(r"rnn_([uw])_(weight|bias)", r"rnn_\1.\2", name)


@pytest.fixture(scope="module")
def golden() -> Golden:
    return read(DATA / "end_to_end__weights.npz")


def saved(folder: Path, tensors: dict[str, np.ndarray], fields: dict[str, object]) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(fields))
    save_file({theirs(name): np.ascontiguousarray(a) for name, a in tensors.items()},
              folder / "model.safetensors")  # fmt: skip
    return folder


@pytest.fixture
def llama(tmp_path: Path, golden: Golden) -> Path:
    fields = json.loads(str(golden["llm_config_json"])) | {"model_type": "llama"}
    return saved(tmp_path / "llama", weights_under(golden, "llm_weight__"), fields)


def weights_under(golden: Golden, prefix: str) -> dict[str, np.ndarray]:
    return {k.removeprefix(prefix): golden[k] for k in golden.arrays if k.startswith(prefix)}


def drafter(folder: Path, golden: Golden, kind: str, **changes: object) -> Path:
    fields = {"model_type": "recurrent_drafting_drafter", "hidden_size": 32, "vocab_size": 64,
              "exit_dim": 64, "num_draft_layers": 2, "rnn": kind == "rnn", **changes}  # fmt: skip
    return saved(folder, weights_under(golden, f"drafter_{kind}__weight_"), fields)


def test_the_folder_is_the_model_that_apples_goldens_are_of(llama: Path, golden: Golden) -> None:
    model, weights = read_checkpoint(llama)
    theirs_model, theirs_weights = llama_of(golden)
    assert {k: v.shape for k, v in weights.items()} == {
        k: v.shape for k, v in theirs_weights.items()
    }
    for name, tensor in theirs_weights.items():
        np.testing.assert_array_equal(weights[name], tensor)
    assert model.decoder == theirs_model.decoder
    assert model.tied_head is False


@pytest.mark.parametrize("executor", ["reference", "fast"])
@pytest.mark.parametrize(
    ("kind", "run"),
    [("rnn", "drafter_rnn__single__W4_L5"), ("sum", "drafter_sum__single__W1_L4")],
)
def test_the_command_writes_what_apples_code_wrote(
    tmp_path: Path, llama: Path, golden: Golden, kind: str, run: str, executor: str
) -> None:
    wanted = read(DATA / f"end_to_end__greedy__{run}.npz")
    prompt, whole = wanted["prompt_ids"][0], wanted["final_output_ids"][0]
    width, length = re.findall(r"W(\d)_L(\d)", run)[0]
    written = whole[len(prompt) :].tolist()
    assert 2 not in written  # the end token would have ended ours
    arguments = ["generate", " ".join(map(str, prompt)), "--ids", "--weights", str(llama),
                 "--max-new-tokens", str(len(written)), "--executor", executor]  # fmt: skip
    place = drafter(tmp_path / "drafter", golden, kind)
    drafting = ["--drafter", str(place), "--beam-width", width, "--draft-len", str(int(length) - 1)]
    for more in ([], drafting):
        done = CliRunner().invoke(app, [*arguments, *more])
        assert done.exit_code == 0, done.output
        assert done.stdout.splitlines()[0] == " ".join(map(str, written))


def test_a_llama_with_biases_and_a_tied_head_by_hand(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    fields = SMALL | {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}
    layer, sizes = "model.layers.0", {"q": (8, 8), "k": (4, 8), "v": (4, 8), "o": (8, 8)}
    tensors = {"model.embed_tokens.weight": rng.normal(size=(16, 8)),
               "model.norm.weight": np.ones(8),
               f"{layer}.input_layernorm.weight": np.ones(8),
               f"{layer}.post_attention_layernorm.weight": np.ones(8)}  # fmt: skip
    for name, shape in sizes.items():
        tensors[f"{layer}.self_attn.{name}_proj.weight"] = np.zeros(shape)
        tensors[f"{layer}.self_attn.{name}_proj.bias"] = np.zeros(shape[0])
    for name in ("gate", "up", "down"):
        tensors[f"{layer}.mlp.{name}_proj.weight"] = np.zeros((8, 8))
        tensors[f"{layer}.mlp.{name}_proj.bias"] = np.zeros(8)
    tensors[f"{layer}.mlp.down_proj.bias"] = np.arange(8.0)
    folder = tmp_path / "llama"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(fields))
    save_file({k: a.astype(np.float32) for k, a in tensors.items()}, folder / "model.safetensors")
    loaded = load_model(folder)
    tokens = np.array([[3, 5]])
    hidden = decode(loaded.ops, loaded.model, tokens, np.ones((1, 2), bool), None)
    table = tensors["model.embed_tokens.weight"]
    x = table[[3, 5]] + np.arange(8.0)  # all matrices are zero: only the last bias is left
    x = x / np.sqrt((x * x).mean(axis=1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(loaded.ops.read(hidden)[0], x, rtol=1e-5)
    scores = loaded.ops.read(mu.logits(loaded.ops, loaded.model, hidden))[0]
    np.testing.assert_allclose(scores, x @ table.T, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "softsign"}, "hidden_act"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "llama3"),
        ({"num_key_value_heads": 3}, "n_kv_heads|n_heads"),
        ({"hidden_size": -1}, "hidden_size"), ({"rms_norm_eps": None}, "rms_norm_eps"),
        ({"eos_token_id": 16}, "eos_token_id"), ({"bos_token_id": None}, "bos_token_id"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings"), ({"mlp_bias": 1}, "mlp_bias"),
        ({"head_dim": 3}, "d_head|head_dim"), ({"max_position_embeddings": 2**70}, "max_position"),
    ],
)  # fmt: skip
def test_a_field_that_we_do_not_have_is_refused_by_name(
    changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        config_from_fields(SMALL | changes)


def test_defaults_are_those_of_the_family() -> None:
    model = config_from_fields({"model_type": "llama"})
    assert model.decoder is not None
    # LlamaConfig of transformers: Llama-2-7B
    stack = model.decoder
    assert (stack.n_layers, stack.d_model, stack.d_ff, stack.d_head) == (32, 4096, 11008, 128)
    assert (stack.n_kv_heads, model.vocab_size, model.bos_id, model.eos_id) == (32, 32000, 1, 2)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [({"exit_dim": 32}, ConfigError, "exit_dim must be that of the weights, 64, got 32"),
     ({"rnn": False}, ConfigError, "rnn must be that of the weights, True, got False")],
)  # fmt: skip
def test_a_drafter_whose_config_contradicts_its_weights_is_refused(
    tmp_path: Path, llama: Path, golden: Golden, changes: dict[str, object],
    error: type[Exception], message: str,
) -> None:  # fmt: skip
    with pytest.raises(error, match=message):
        load_model(llama, drafter=drafter(tmp_path / "drafter", golden, "rnn", **changes))


def test_a_drafter_of_another_model_or_no_drafter_is_refused(
    tmp_path: Path, llama: Path, golden: Golden
) -> None:
    with pytest.raises(ConfigError, match="width 32 and 64 tokens"):
        load_model(drafter=drafter(tmp_path / "drafter", golden, "rnn"))
    with pytest.raises(WeightsError, match="Apple's names"):
        load_model(llama, drafter=llama)


def test_a_decoder_alone_is_refused_where_an_encoder_is_read(tmp_path: Path, llama: Path) -> None:
    np.savez(tmp_path / "ids.npz", encoder_input_ids=[[1]], decoder_input_ids=[[1]])
    given = ["--inputs", str(tmp_path / "ids.npz"), "--out", str(tmp_path / "out.npz")]
    done = CliRunner().invoke(app, ["forward", str(llama), *given])
    assert "must have an encoder" in str(done.exception) + done.output
    assert not (tmp_path / "out.npz").exists()
    done = CliRunner().invoke(app, ["generate", "5 6 99", "--ids", "--weights", str(llama)])
    assert "99" in str(done.exception) + done.output
