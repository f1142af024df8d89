"""ONNX Runtime and OpenVINO on exported graphs, for `tests.benchmarks.inference`.

The graphs are those of `mu-ref export onnx`; the host does what `docs/onnx.md` says: cosines,
sines, masks, and the caches from one step to the next. ONNX Runtime runs the float32 graphs and the
QDQ graphs of w8a8; OpenVINO the float32 graphs, as they are or with weights compressed by NNCF
(int8 per channel; int4 in groups of 128 in the decoder, int8 in the encoder), compiled for latency
on one stream.
"""

from pathlib import Path
from typing import Any

import numpy as np

from mu_ref.config import ModelConfig, StackConfig
from tests.benchmarks.engines import Clock, Ours, random_weights

__all__ = ["OnnxRuntime", "OpenVino", "save_graphs"]

Feed = dict[str, np.ndarray]


def save_graphs(config: ModelConfig, folder: Path) -> None:
    """Write the graphs of random weights: `float32` and `w8a8` in the folder."""
    from mu_ref.golden.onnx import export_onnx
    from mu_ref.integers.store import save_integers
    from mu_ref.weights import save_weights

    for scheme in ("float32", "w8a8"):
        weights = folder / f"{scheme}.safetensors"
        if scheme == "float32":
            save_weights(weights, config, random_weights(config))
        else:
            save_integers(weights, Ours(config, scheme, 1).ops.model)
        export_onnx(folder / scheme, weights, scheme)
        weights.unlink()


def _given(tokens: np.ndarray, positions: np.ndarray, stack: StackConfig, n_keys: int) -> Feed:
    speeds = stack.rope_theta ** -(np.arange(0, stack.d_head, 2) / stack.d_head)
    angles = (positions[:, None] * speeds)[None]
    return {
        "tokens": tokens,
        "mask": np.ones((1, 1, tokens.shape[1], n_keys), bool),
        "cos": np.cos(angles).astype(np.float32),
        "sin": np.sin(angles).astype(np.float32),
    }


class _Graphs:
    """What both have in common: one request, batch 1."""

    def __init__(self, config: ModelConfig, name: str, threads: int) -> None:
        self.config, self.name, self.threads = config, f"{name}, {threads}T", threads
        self.cache_dtype = np.int8 if "w8a8" in name else np.float32

    def infer(self, graph: str, feed: Feed) -> Feed:
        raise NotImplementedError

    def run(self, source: np.ndarray, n_output: int, clock: Clock) -> list[float]:
        """Return the moments of the encoder's end and of every token."""
        config, n = self.config, source.shape[1]
        decoder = config.stacks["decoder"]
        start = clock()
        positions = np.arange(n) - (n - 1) // 2  # the encoder counts from the middle
        memory = self.infer("encoder", _given(source, positions, config.stacks["encoder"], n))
        moments = [clock() - start]
        kept = {name: x for name, x in memory.items() if name.endswith("_split")}
        kept["memory_mask"] = np.ones((1, 1, 1, n), bool)
        empty = np.zeros((1, decoder.n_kv_heads, 0, decoder.d_head), self.cache_dtype)
        caches = {f"decoder.{i}.self_attention.{x}_cache.past": empty
                  for i in range(decoder.n_layers) for x in "kv"}  # fmt: skip
        token = np.array([[config.bos_id]])
        for place in range(n_output):
            feed = _given(token, np.array([place]), decoder, place + 1) | kept | caches
            found = self.infer("decoder", feed)
            caches = {f"{name}.past": x for name, x in found.items() if name.endswith("_cache")}
            token = found["logits"][:, -1:].argmax(-1)
            moments.append(clock() - start)
        return moments


class OnnxRuntime(_Graphs):
    """ONNX Runtime on a CPU."""

    def __init__(self, config: ModelConfig, folder: Path, kind: str, threads: int) -> None:
        import onnxruntime

        super().__init__(config, f"ONNX Runtime {kind}", threads)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.sessions = {
            graph: onnxruntime.InferenceSession(folder / kind / f"{graph}.onnx", options)
            for graph in ("encoder", "decoder")
        }

    def infer(self, graph: str, feed: Feed) -> Feed:
        session = self.sessions[graph]
        names = [x.name for x in session.get_outputs()]
        return dict(zip(names, session.run(names, feed), strict=True))


class OpenVino(_Graphs):
    """OpenVINO on a CPU."""

    def __init__(self, config: ModelConfig, folder: Path, kind: str, threads: int) -> None:
        import nncf
        import openvino

        super().__init__(config, f"OpenVINO {kind}", threads)
        settings: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": threads,
        }  # fmt: skip
        if kind == "float32":
            settings["INFERENCE_PRECISION_HINT"] = "f32"
        core, mode = openvino.Core(), nncf.CompressWeightsMode
        self.graphs = {}
        for graph in ("encoder", "decoder"):
            model = core.read_model(folder / "float32" / f"{graph}.onnx")
            if kind == "int4" and graph == "decoder":
                model = nncf.compress_weights(
                    model, mode=mode.INT4_SYM, group_size=128, all_layers=True
                )
            elif kind != "float32":
                model = nncf.compress_weights(model, mode=mode.INT8_ASYM)
            self.graphs[graph] = core.compile_model(model, "CPU", settings)

    def infer(self, graph: str, feed: Feed) -> Feed:
        found = self.graphs[graph](feed, share_inputs=True, share_outputs=False)
        outputs = self.graphs[graph].outputs  # a tensor may have the names of several nodes
        return {name: found[output] for output in outputs for name in output.get_names()}
