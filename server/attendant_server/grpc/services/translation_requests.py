"""The requests to translate, from messages."""

from collections.abc import Sequence
from typing import TypeAlias

from attendant.v1 import translation_pb2
from attendant_glossaries import GlossaryEntry

from attendant_server.application.glossaries import read_entries
from attendant_server.application.jobs import JobRunner
from attendant_server.application.translation import StreamRequest, TranslationRequest
from attendant_server.application.translation_options import DEFAULT_OPTIONS, TranslationOptions
from attendant_server.grpc.services.decoding_messages import decoding_fields
from attendant_server.grpc.services.messages import given

TranslationMessage: TypeAlias = (
    translation_pb2.TranslateRequest | translation_pb2.StreamTranslateRequest
)


async def read_glossary_entries(
    jobs: JobRunner, request: TranslationMessage
) -> list[GlossaryEntry]:
    """The entries of a message, which count as held; raises InvalidRequest or QueueFull."""
    entries = request.glossary_entries
    return await read_entries(jobs, len(entries), ((e.source, e.targets) for e in entries))


def translation_request(
    request: translation_pb2.TranslateRequest, glossary_entries: Sequence[GlossaryEntry]
) -> TranslationRequest:
    """The request to translate the texts of a message."""
    return TranslationRequest(
        texts=list(request.texts),
        model=request.model,
        options=_options(request),
        truncation=request.truncation,
        source_language=request.source_language,
        target_language=request.target_language,
        splitting=request.splitting,
        return_sentences=request.return_sentences,
        text_normalization=request.text_normalization,
        target_prefixes=request.target_prefixes,
        return_alignments=request.return_alignments,
        glossary=request.glossary,
        glossary_entries=glossary_entries,
        controls=dict(request.controls),
    )


def stream_request(
    request: translation_pb2.StreamTranslateRequest, glossary_entries: Sequence[GlossaryEntry]
) -> StreamRequest:
    """The request to translate the text of a message piece by piece."""
    return StreamRequest(
        text=request.text,
        model=request.model,
        options=_options(request),
        truncation=request.truncation,
        source_language=request.source_language,
        target_language=request.target_language,
        splitting=request.splitting,
        return_sentences=request.return_sentences,
        text_normalization=request.text_normalization,
        target_prefix=request.target_prefix,
        return_alignments=request.return_alignments,
        glossary=request.glossary,
        glossary_entries=glossary_entries,
        controls=dict(request.controls),
    )


def _options(request: TranslationMessage) -> TranslationOptions:
    if not request.HasField("options"):
        return DEFAULT_OPTIONS
    options = request.options
    return TranslationOptions(
        **decoding_fields(options),
        allow_unknown=given(options, "allow_unknown"),
        replace_unknown=options.replace_unknown,
        coverage_penalty=given(options, "coverage_penalty"),
        target_prefix_bias=given(options, "target_prefix_bias"),
        return_alternatives=options.return_alternatives,
    )
