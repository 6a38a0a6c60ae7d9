"""The engine: the training loop, checkpoints, logs and terminal output. It does not depend on any single method."""
