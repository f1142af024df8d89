"""What an integer means: scales, roundings, tables and files of integer models.

`fixed_point.py` is the only place that rounds; read it first, then `nonlinear.py`. The room imports
configurations and weights, no executor and no model: integers are a specification.
"""
