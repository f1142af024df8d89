"""Training with the tape executor: losses, optimizers, schedule, batches, trainer."""
