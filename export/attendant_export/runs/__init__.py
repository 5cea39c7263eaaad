"""The files of a training run: checkpoints, curves, records."""
