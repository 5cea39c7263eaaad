"""Parts of the messages of services whose models decode."""

from typing import Any, TypeAlias

from attendant.v1 import language_model_pb2, translation_pb2

from attendant_server.application.generation import GeneratedText, GenerationAnswer
from attendant_server.application.hypotheses import TranslationHypothesis
from attendant_server.application.sampling import SamplingOptions
from attendant_server.application.translation import TranslationAnswer
from attendant_server.grpc.services.messages import given, timings

Options: TypeAlias = translation_pb2.TranslateOptions | language_model_pb2.GenerateOptions
Response: TypeAlias = (
    translation_pb2.TranslateResponse
    | translation_pb2.StreamTranslateResponse
    | language_model_pb2.GenerateResponse
    | language_model_pb2.StreamGenerateResponse
)
Hypothesis: TypeAlias = TranslationHypothesis | GeneratedText
HypothesisMessage: TypeAlias = translation_pb2.Hypothesis | language_model_pb2.GeneratedText


def decoding_fields(options: Options) -> dict[str, Any]:
    """The fields of `DecodingOptions` that both messages of options have."""
    return {
        "beam_size": given(options, "beam_size"),
        "num_hypotheses": given(options, "num_hypotheses"),
        "length_penalty": given(options, "length_penalty"),
        "max_output_tokens": given(options, "max_output_tokens"),
        "min_output_tokens": given(options, "min_output_tokens"),
        "return_tokens": options.return_tokens,
        "repetition_guard": given(options, "repetition_guard"),
        "no_repeat_ngram_size": given(options, "no_repeat_ngram_size"),
        "suppressed_token_ids": tuple(options.suppressed_token_ids),
        "suppressed_texts": tuple(options.suppressed_texts),
        "repetition_penalty": given(options, "repetition_penalty"),
        "patience": given(options, "patience"),
        "num_beam_groups": given(options, "num_beam_groups"),
        "diversity_penalty": given(options, "diversity_penalty"),
        "sampling": _sampling(options.sampling) if options.HasField("sampling") else None,
    }


def _sampling(sampling: translation_pb2.Sampling) -> SamplingOptions:
    return SamplingOptions(
        temperature=given(sampling, "temperature"),
        top_k=given(sampling, "top_k"),
        top_p=given(sampling, "top_p"),
        min_p=given(sampling, "min_p"),
        seed=given(sampling, "seed"),
        first_index=sampling.first_index,
    )


def fill_answer(response: Response, answer: TranslationAnswer | GenerationAnswer) -> None:
    """Set the fields of a response that do not depend on its results."""
    response.model = answer.model
    response.token_counts.num_input_tokens = answer.num_input_tokens
    response.token_counts.num_output_tokens = answer.num_output_tokens
    response.timings.CopyFrom(timings(answer.phases))
    if answer.seed is not None:
        response.seed = answer.seed


def finish_reason(hypothesis: Hypothesis) -> "translation_pb2.FinishReason.ValueType":
    """Why a hypothesis ended."""
    if hypothesis.is_loop:
        return translation_pb2.FINISH_REASON_REPETITION
    if hypothesis.is_complete:
        return translation_pb2.FINISH_REASON_STOP
    return translation_pb2.FINISH_REASON_LENGTH


def add_tokens(message: HypothesisMessage, hypothesis: Hypothesis) -> None:
    """Add the tokens of a hypothesis to its message."""
    for token_id, text, log_probability in zip(
        hypothesis.token_ids, hypothesis.token_texts, hypothesis.log_probabilities, strict=True
    ):
        message.tokens.add(id=token_id, text=text, log_probability=log_probability)
