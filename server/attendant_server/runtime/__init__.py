"""Models over ONNX Runtime: sessions, bound buffers, caches. Only this package uses onnxruntime."""
