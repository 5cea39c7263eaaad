"""Which special tokens hold for which side of a model."""

from attendant.v1.bundle_pb2 import Manifest, SpecialTokens


def target_tokens(manifest: Manifest) -> SpecialTokens:
    """The special tokens of targets: those of sources unless the targets have their own."""
    has_own = manifest.HasField("target_special_tokens")
    return manifest.target_special_tokens if has_own else manifest.special_tokens
