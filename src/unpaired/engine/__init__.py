"""The engine: the training loop, checkpoints and what a person sees of them. It never names a method."""
