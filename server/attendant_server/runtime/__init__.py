"""Models over ONNX Runtime, the only users of it: sessions, bound buffers, caches."""
