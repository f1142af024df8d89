"""What is computed: the forward pass, written once over `mu_ref.ops.Ops`. Start with `mu.py`."""
