"""Forms of checkpoints that are recognized in order to be refused by their names."""

from attendant_export.importers.checkpoint import CONFIG, Checkpoint, CheckpointError

ADAPTER = "adapter_config.json"
"""The configuration of an adapter of PEFT, which changes the weights of another checkpoint."""


def check_form(checkpoint: Checkpoint) -> None:
    """Raise CheckpointError for an adapter alone and for quantized weights."""
    if not checkpoint.has(CONFIG) and checkpoint.has(ADAPTER):
        raise CheckpointError(
            f"{checkpoint.title} has {ADAPTER} and no {CONFIG}: adapters are not supported; merge "
            "it into the weights of its model first"
        )
    config = checkpoint.config
    quantization = config.get("quantization_config")
    if quantization is not None:
        method = quantization.get("quant_method") if isinstance(quantization, dict) else None
        raise CheckpointError(
            f"{config.path}: quantization_config.quant_method is {method!r}, which is not "
            "supported; supported: weights in float32, float16 and bfloat16"
        )
