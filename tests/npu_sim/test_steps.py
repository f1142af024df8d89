"""Decode steps that are continued are those that the forward pass would have recorded."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from npu_strategies import small_family

from mu_ref.presets import preset, tiny
from npu_sim.models.families import FAMILIES
from npu_sim.program import request, rows
from npu_sim.program.precision import Precision
from npu_sim.program.program import Call, Gemm, Op, Tensor
from npu_sim.program.request import described_program, record_request
from npu_sim.program.rows import program_table
from npu_sim.program.steps import LIKE, grows_evenly, line_of

WRITERS = sorted(kind for kind in FAMILIES if small_family(kind).model.decoder is not None)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(WRITERS), st.integers(1, 30), st.integers(1, 30), st.integers(1, 3),
    st.sampled_from([4, 8, 16]),
)  # fmt: skip
def test_a_continued_request_is_the_recorded_one(kind, n_input, n_output, batch, kv_bits):
    ask = small_family(kind), n_input, n_output, Precision(kv_bits=kv_bits), batch
    continued = described_program(*ask)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(request, "grows_evenly", lambda *_: False)
        recorded = described_program(*ask)
    assert continued == recorded
    for call, other in zip(program_table(continued).calls, program_table(recorded).calls,
                           strict=True):  # fmt: skip
        assert call.rows.tobytes() == other.rows.tobytes()
        np.testing.assert_array_equal(call.live, other.live)
        assert call.ops == other.ops


def test_of_many_steps_three_are_recorded(monkeypatch):
    recorded = []

    def counted(*args):
        recorded.append(args)
        return record(*args)

    record = request.record_decode
    monkeypatch.setattr(request, "record_decode", counted)
    program = record_request(tiny(), 4, 50, Precision())
    assert len(recorded) == LIKE == 3
    assert len(program.calls) == 51
    # what reads no cache is one object in all steps
    assert len({id(call.ops[0]) for call in program.calls[1:]}) == 1


def test_of_many_steps_the_rows_of_few_are_written(monkeypatch):
    asked = []
    written = rows._call_table
    monkeypatch.setattr(rows, "_call_table", lambda *a: asked.append(a) or written(*a))
    program = described_program(small_family("llama"), 5, 40, Precision())
    assert len(program_table(program).calls) == 40
    assert len(asked) <= 6


@pytest.mark.parametrize(
    ("window", "first", "last", "evenly"),
    [
        (None, 1, 99, True),
        (8, 1, 8, True),  # nothing is forgotten yet
        (8, 1, 9, False),
        (8, 7, 9, False),
        (8, 8, 99, True),  # each step forgets one
        (8, 9, 99, True),
    ],
)
def test_a_window_bends_the_growth_where_it_begins_to_forget(window, first, last, evenly):
    model = tiny()
    decoder = replace(
        model.decoder, window=window, windowed_layers=(window is not None,) * model.decoder.n_layers
    )
    assert grows_evenly(replace(model, decoder=decoder), 16, first, last) == evenly


def test_another_theta_and_slots_of_broken_bytes_are_recorded():
    model = preset("microsoft-mu-text2text")
    stretched = replace(model, decoder=replace(model.decoder, rope_ntk_factor=2.0))
    assert grows_evenly(model, 16, 1, 99)
    assert not grows_evenly(stretched, 16, 1, 99)
    odd = replace(tiny().decoder, n_heads=1, n_kv_heads=1, d_head=2)
    assert grows_evenly(replace(tiny(), decoder=odd), 4, 1, 99)  # one byte a slot
    assert not grows_evenly(replace(tiny(), decoder=odd), 3, 1, 99)


def op(n_slots: int) -> Op:
    q = Tensor(name="q", shape=(1, 4, 1, 5), bits=16, role="activation")
    keys = Tensor(name="keys", shape=(1, 2, n_slots, 5), bits=16, role="kv")
    out = Tensor(name="scores", shape=(1, 4, 1, n_slots), bits=16, role="activation")
    return Op(site="scores", kind="matmul", phase="decode", inputs=(q, keys), output=out,
              gemm=Gemm(count=4, m=1, n=n_slots, k=5), empty_kv_bytes=7)  # fmt: skip


def test_a_line_by_hand():
    still = replace(op(9), site="still")
    line = line_of(*(Call(phase="decode", ops=(op(n), still)) for n in (3, 5)))  # two slots a step
    assert [line(n).ops[0] for n in (0, 1, 2, 7)] == [op(n) for n in (3, 5, 7, 17)]
    assert line(7).ops[1] is still
    assert line(7).phase == "decode"


def test_calls_of_other_operations_are_not_continued():
    calls = [Call(phase="decode", ops=(op(3),)), Call(phase="decode", ops=(op(4), op(4)))]
    assert line_of(*calls)(5) == calls[1]
