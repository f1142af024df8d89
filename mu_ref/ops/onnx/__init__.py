"""The executor that writes an ONNX graph: `ops.py`, on a `graph.py` of nodes.

Its numbers are floats or integers (`numbers.py`). Imports `ops`, and the formats of `integers`.
"""
