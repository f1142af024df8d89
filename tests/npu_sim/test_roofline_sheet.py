from hypothesis import given, settings
from npu_strategies import configs, lengths, precisions

from npu_sim.hardware.presets import NPUS, npu
from npu_sim.program.request import record_request
from npu_sim.report.fidelity import simulate
from npu_sim.roofline.columns import RooflineSheet
from npu_sim.tile.rows import program_table


@settings(max_examples=25, deadline=None)
@given(configs, lengths, precisions)
def test_columns_give_the_cycles_of_the_operations_one_by_one(config, request, precision):
    program = record_request(config, *request[:2], precision, request[2])
    sheet = RooflineSheet(program_table(program))
    for name in NPUS:
        for sram in (2000, npu(name).sram.capacity_bytes):
            chip = npu(name).with_value("sram.capacity_bytes", sram)
            if chip.matrix.w16a16_macs_per_cycle:
                report = simulate(program, chip, fidelity="roofline")
                assert int(sheet.call_cycles(chip).sum()) == report.latency_cycles
                assert sheet.latency_ms(chip) == report.latency_ms
