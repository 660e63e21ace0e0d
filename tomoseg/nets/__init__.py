"""Networks: their cards, architectures, training, checkpoints and prediction.

Nothing is imported here, so that reading a model card never waits for torch.
"""
