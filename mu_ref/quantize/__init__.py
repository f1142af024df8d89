"""Integers instead of floats: fixed-point arithmetic, calibration, encodings, quantized weights."""
