"""Forms of checkpoints that are recognized in order to be refused by their names."""

from attendant_export.importers.checkpoint import CONFIG, Checkpoint, CheckpointError, Config

ADAPTER = "adapter_config.json"
"""The configuration of an adapter of PEFT, which changes the weights of another checkpoint."""


def check_form(checkpoint: Checkpoint) -> None:
    """Raise CheckpointError for an adapter alone, quantized weights, and a network in code."""
    if not checkpoint.has(CONFIG) and checkpoint.has(ADAPTER):
        raise CheckpointError(
            f"{checkpoint.title} has {ADAPTER} and no {CONFIG}: adapters are not supported; merge "
            "it into the weights of its model first"
        )
    config = checkpoint.config
    _check_code(config)
    quantization = config.get("quantization_config")
    if quantization is not None:
        method = quantization.get("quant_method") if isinstance(quantization, dict) else None
        raise CheckpointError(
            f"{config.path}: quantization_config.quant_method is {method!r}, which is not "
            "supported; supported: weights in float32, float16 and bfloat16"
        )


def _check_code(config: Config) -> None:
    """Raise CheckpointError if the network is in code of the checkpoint, which is never run.

    Such code may differ from the family of the same name, for example in the mask of attention.
    """
    classes = config.get("auto_map")
    for name in sorted(classes) if isinstance(classes, dict) else ():
        if name.startswith("AutoModel"):
            raise CheckpointError(
                f"{config.path}: auto_map.{name} is {classes[name]!r}: networks in code of a "
                "checkpoint are not supported; if it is the network of model_type "
                f"{config.get('model_type')!r}, remove auto_map"
            )
