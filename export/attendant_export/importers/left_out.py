"""Files of a checkpoint with weights that an import does not read, to name them."""

import re
from collections.abc import Container

from attendant_export.importers.checkpoint import CONFIG, Checkpoint

HAS_WEIGHTS = re.compile(r".+\.(pt|pth|bin|safetensors|npz|npy)|idf\.json|query_token_weights\.txt")
OTHER_COPIES = re.compile(
    r"((pytorch_|openvino_)?model|training_args|optimizer|scheduler|scaler|rng_state|consolidated)"
    r"([-._].*)?"
)
"""The weights of the network in other files or formats, and the state of a training."""


def left_out_files(checkpoint: Checkpoint, read: Container[str]) -> list[str]:
    """The names of files with weights of their own that are not in ``read``, such as heads.

    Empty for formats without ``config.json``. Of a model on a hub, only files that were asked for.
    """
    if not checkpoint.has(CONFIG):
        return []
    # Not `Checkpoint.names`: it may ask a hub.
    present = sorted(path.name for path in checkpoint.folder.iterdir() if path.is_file())
    return [
        name
        for name in present
        if HAS_WEIGHTS.fullmatch(name) and not OTHER_COPIES.fullmatch(name) and name not in read
    ]
