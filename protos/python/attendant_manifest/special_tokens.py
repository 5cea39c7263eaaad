"""The special tokens of a model's targets."""

from attendant.v1.bundle_pb2 import Manifest, SpecialTokens


def target_tokens(manifest: Manifest) -> SpecialTokens:
    """``target_special_tokens``, or ``special_tokens`` if it is absent."""
    has_own = manifest.HasField("target_special_tokens")
    return manifest.target_special_tokens if has_own else manifest.special_tokens
