"""The PyTorch models. They know tensors only."""
