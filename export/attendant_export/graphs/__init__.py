"""Builds the ONNX graphs of the models and writes them to files."""
