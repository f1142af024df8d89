"""Compare `mu_ref.redrafter` with golden files of Apple's code; see `__main__.py`."""
