"""The ONNX graphs of the models, and their writer."""
