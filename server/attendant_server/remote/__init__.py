"""Downloads bundles from a URL into a bounded cache. Knows no gRPC, no engine and no runtime."""
