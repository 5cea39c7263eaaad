"""The PyTorch models. They depend on tensors only."""
