"""Other engines with a model of the shape of `mu-330m`, for `tests.benchmarks.inference`.

The nearest that they can express is Hugging Face's T5Gemma: the same layers, heads, width and
vocabulary, norms before and after; its MLP is gated with 2048 features (3 x 2048 numbers per input,
ours 2 x 3072) and it has no biases. Weights are random in every engine. CTranslate2 takes its
AVX2 code on some machines that have AVX-512; CT2_FORCE_CPU_ISA=AVX512 is set unless you set it.
Told two threads, some engines are slower than told one (CTranslate2 in int8 by half: it then uses
one all the same); so they answer both ways.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np

from mu_ref.config import ModelConfig
from tests.benchmarks.engines import Clock

__all__ = ["CTranslate2", "PyTorch", "save_t5gemma"]


os.environ.setdefault("CT2_FORCE_CPU_ISA", "AVX512")  # read when ctranslate2 is imported


def save_t5gemma(config: ModelConfig, folder: Path) -> None:
    """Write a random T5Gemma of the model's shape and a tokenizer of single words."""
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import (
        PreTrainedTokenizerFast,
        T5GemmaConfig,
        T5GemmaForConditionalGeneration,
        T5GemmaModuleConfig,
    )

    torch.manual_seed(0)

    def stack(name: str) -> Any:
        s = config.stacks[name]
        return T5GemmaModuleConfig(
            vocab_size=config.vocab_size,
            hidden_size=s.d_model,
            intermediate_size=s.d_ff * 2 // 3,
            num_hidden_layers=s.n_layers,
            num_attention_heads=s.n_heads,
            num_key_value_heads=s.n_kv_heads,
            head_dim=s.d_head,
            query_pre_attn_scalar=s.d_head,
            layer_types=["full_attention"] * s.n_layers,
            attn_logit_softcapping=None,
            final_logit_softcapping=None,
            is_decoder=name == "decoder",
        )

    model = T5GemmaForConditionalGeneration(
        T5GemmaConfig(encoder=stack("encoder"), decoder=stack("decoder"), tie_word_embeddings=True)
    ).eval()
    model.save_pretrained(folder)
    words = {"<pad>": 0, "<eos>": 1, "<bos>": 2, "<unk>": 3}
    words |= {f"w{i}": i for i in range(4, config.vocab_size)}
    special = {f"{name}_token": f"<{name}>" for name in ("pad", "eos", "bos", "unk")}
    tokenizer = Tokenizer(WordLevel(words, unk_token="<unk>"))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)


class PyTorch:
    """Hugging Face transformers on PyTorch."""

    def __init__(self, folder: Path, dtype: str, threads: int) -> None:
        import torch
        from transformers import T5GemmaForConditionalGeneration

        self.threads, self.torch = threads, torch
        self.name = f"PyTorch {dtype}, {threads}T"
        self.model = T5GemmaForConditionalGeneration.from_pretrained(
            folder, dtype=getattr(torch, dtype)
        ).eval()

    def run(self, source: np.ndarray, n_output: int, clock: Clock) -> list[float]:
        """Return the moments of the encoder's end and of every token."""
        torch = self.torch
        torch.set_num_threads(self.threads)
        with torch.inference_mode():
            start = clock()
            encoded = self.model.get_encoder()(input_ids=torch.from_numpy(source))
            moments = [clock() - start]
            token, past = torch.full((1, 1), 2), None
            for _ in range(n_output):
                out = self.model(
                    encoder_outputs=encoded, decoder_input_ids=token, past_key_values=past,
                    use_cache=True,
                )  # fmt: skip
                past, token = out.past_key_values, out.logits[:, -1:].argmax(-1)
                token.item()
                moments.append(clock() - start)
        return moments


class CTranslate2:
    """CTranslate2, which tells no moments: two runs, of one token and of all."""

    def __init__(self, folder: Path, compute_type: str, threads: int) -> None:
        import ctranslate2

        self.folder = folder / f"ctranslate2-{compute_type}"
        if not self.folder.is_dir():
            converter = ctranslate2.converters.TransformersConverter(str(folder))
            converter.convert(str(self.folder), quantization=compute_type)
        self.name = f"CTranslate2 {compute_type}, {threads}T"
        self.compute_type, self.threads = compute_type, threads
        self.models: dict[int, Any] = {}  # by threads

    def _request(self, source: np.ndarray, n_output: int, clock: Clock) -> float:
        import ctranslate2

        if self.threads not in self.models:
            self.models = {
                self.threads: ctranslate2.Translator(
                    str(self.folder), compute_type=self.compute_type,
                    intra_threads=self.threads, inter_threads=1,
                )
            }  # fmt: skip
        words = [[f"w{i}" for i in source[0]]]
        start = clock()
        result = self.models[self.threads].translate_batch(
            words, beam_size=1, max_decoding_length=n_output, min_decoding_length=n_output
        )
        elapsed = clock() - start
        assert len(result[0].hypotheses[0]) == n_output, len(result[0].hypotheses[0])
        return elapsed

    def run(self, source: np.ndarray, n_output: int, clock: Clock) -> list[float]:
        """Return moments; the encoder's end is the first token less one step."""
        first = self._request(source, 1, clock)
        step = (self._request(source, n_output, clock) - first) / (n_output - 1)
        return [first - step, *(first + step * i for i in range(n_output))]
