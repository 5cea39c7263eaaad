"""The models that the scripted server describes."""

from attendant.v1 import bundle_pb2, model_pb2

INFOS = [
    model_pb2.ModelInfo(
        name="upper",
        version="1",
        kind=bundle_pb2.MODEL_KIND_TRANSLATION,
        state=model_pb2.MODEL_STATE_READY,
        is_default=True,
        is_default_of_kind=True,
        source_language="en",
        target_language="en-x-loud",
        precision="int8",
        description="Upper case.",
    ),
    model_pb2.ModelInfo(
        name="vectors",
        version="1",
        kind=bundle_pb2.MODEL_KIND_EMBEDDING,
        state=model_pb2.MODEL_STATE_LOADING,
        languages=["en", "de"],
        precision="fp32",
    ),
]


PROVENANCE = bundle_pb2.Provenance(
    data=[bundle_pb2.TrainingData(name="Tatoeba", license="CC BY 2.0 FR")],
    seed=1,
    recipe="None.",
    created="2026-11-22",
    hardware="a laptop",
)
QUALITY = [
    bundle_pb2.QualityFigure(
        metric="sacreBLEU", dataset="a test set", precision=precision, search="greedy", value=value
    )
    for precision, value in (("int8", 22.5), ("fp32", 23.0))
]
PARITY = [
    bundle_pb2.PrecisionParity(
        precision=precision,
        max_log_probability_difference=difference,
        tokens=[bundle_pb2.TokenParity(search="greedy", batching="single")] * 20,
    )
    for precision, difference in (("int8", 0.218), ("fp32", 1e-5))
]


def description_of(info: model_pb2.ModelInfo) -> model_pb2.GetModelResponse:
    """The full description of a model. Only the short description differs between models."""
    return model_pb2.GetModelResponse(
        model=info,
        available_precisions=["fp32", "int8"],
        limits=bundle_pb2.Limits(max_source_tokens=128, max_target_tokens=130),
        request_limits=model_pb2.RequestLimits(
            max_texts=64, max_text_characters=1000, max_beam_size=8
        ),
        translation_sizes=model_pb2.TranslationSizes(d_model=256, num_heads=4),
        license="Apache-2.0",
        credits=["Tatoeba", "Example Ltd."],
        provenance=PROVENANCE,
        quality=QUALITY,
        parity=bundle_pb2.ParityReport(precisions=PARITY),
    )
