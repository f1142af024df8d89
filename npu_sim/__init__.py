"""A simulator of neural processing units that runs the programs `mu_ref`'s forward pass records."""
