"""The subcommands of `attendant` that print one line for each input line: questions and answers."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from attendant_client.bulk_lines import in_bulk, results_of
from attendant_client.client import Client
from attendant_client.detection_results import DetectedLanguages
from attendant_client.embedding_results import (
    ClassifiedText,
    Embedding,
    FilledText,
    SparseEmbedding,
)
from attendant_client.errors import InvalidRequestError, NotFoundError, TextError
from attendant_client.input_lines import Line, files_of, read_lines
from attendant_client.line_commands import LineCommand, hypotheses_line, one_line
from attendant_client.line_languages import (
    Untranslated,
    detects,
    fault_of,
    translate_by_language,
    with_language_of,
)
from attendant_client.line_output import complain
from attendant_client.results import Tokenization, Translation, TranslationScore
from attendant_client.search_flags import runs, search_options


def stream(client: Client, arguments: argparse.Namespace) -> int:
    """Print translations one after another, each while it is decoded."""
    name, all_good = ("text" if arguments.texts else "line"), True
    for line in read_lines(arguments, 1, files_of(arguments)):
        fault = line.fault
        if not (fault or line.is_blank):
            fault = _stream_line(client, line, arguments)
        print(flush=True)
        if fault:
            complain(f"{name} {line.number}: {fault}")
        all_good &= not fault
    return 0 if all_good else 1


def _stream_line(client: Client, line: Line, arguments: argparse.Namespace) -> str:
    """Print one translation without an end of line; return the fault of the text."""
    chosen = arguments
    try:
        if detects(arguments):
            chosen = with_language_of(client, arguments, line)
        options = _translate_options(chosen, line) | {"target_prefix": arguments.target_prefix}
        with client.stream_translate(line.texts[0], **options) as deltas:
            for delta in deltas:
                print(one_line(delta), end="", flush=True)
    except TextError as error:
        return error.message
    except (InvalidRequestError, NotFoundError) as error:
        if error.message.startswith("text: "):
            return error.message.removeprefix("text: ")
        # The other faults would also be those of all other texts, or of those in this language.
        if not detects(arguments):
            raise
        return fault_of(chosen.source_language, error).message
    return ""


def _translate(
    client: Client, arguments: argparse.Namespace, lines: Sequence[Line]
) -> Sequence[Translation | Untranslated]:
    if detects(arguments):
        return translate_by_language(client, arguments, lines, _translate_lines)
    return _translate_lines(client, arguments, lines)


def _translate_lines(
    client: Client, arguments: argparse.Namespace, lines: Sequence[Line]
) -> Sequence[Translation]:
    if not arguments.sample:
        return _translate_run(client, arguments, lines)
    # The place of a line in its input decides about its samples, whatever lines share its call.
    found: list[Translation] = []
    for run in runs(lines):
        found += _translate_run(client, arguments, run)
    return found


def _translate_run(
    client: Client, arguments: argparse.Namespace, lines: Sequence[Line]
) -> Sequence[Translation]:
    options = _translate_options(arguments, lines[0]) | {"markup": arguments.markup}
    if in_bulk(arguments):
        del options["target_prefix_bias"]
        limit = arguments.call_timeout
        call = client.bulk_translate(_texts(lines), timeout_seconds=limit, **options)
        return results_of(lines, call, lambda line: _translate_alone(client, arguments, line))
    prefix = arguments.target_prefix
    prefixes = None if prefix is None else [prefix] * len(lines)
    return client.translate(_texts(lines), target_prefix=prefixes, **options)


def _translate_alone(client: Client, arguments: argparse.Namespace, line: Line) -> Translation:
    options = _translate_options(arguments, line) | {"markup": arguments.markup}
    [result] = client.translate(_texts([line]), **options)
    return result


def _texts(lines: Sequence[Line]) -> list[str]:
    """The first text of each line."""
    return [line.texts[0] for line in lines]


def _translate_options(arguments: argparse.Namespace, first: Line) -> dict[str, Any]:
    return {
        **_languages_and_controls(arguments),
        **_common(arguments),
        "glossary": arguments.glossary,
        "glossary_entries": arguments.glossary_entries,
        **search_options(arguments, first),
        "allow_unknown": arguments.allow_unknown,
        "replace_unknown": arguments.replace_unknown,
        "coverage_penalty": arguments.coverage_penalty,
        "target_prefix_bias": arguments.target_prefix_bias,
        "return_alternatives": arguments.alternatives,
        "return_alignments": arguments.alignments,
        "splitting": arguments.split,
        "offset_unit": arguments.offset_unit,
    }


def _translation_text(result: Translation, arguments: argparse.Namespace) -> str:
    return hypotheses_line(result.hypotheses, arguments)


def _translation_fields(result: Translation, arguments: argparse.Namespace) -> dict[str, Any]:
    fields = asdict(result)
    for hypothesis in fields["hypotheses"]:
        for name in ("tokens", "alignments"):
            if not getattr(arguments, name):
                del hypothesis[name]
        if not (arguments.glossary or arguments.glossary_entries):
            del hypothesis["glossary_terms"]
        if not arguments.replace_unknown:
            del hypothesis["num_replaced_tokens"]
    return fields


def _score(
    client: Client, arguments: argparse.Namespace, lines: Sequence[Line]
) -> Sequence[TranslationScore]:
    return client.score(
        [(line.texts[0], line.texts[1]) for line in lines],
        length_penalty=arguments.length_penalty,
        return_tokens=arguments.tokens,
        offset_unit=arguments.offset_unit,
        **_languages_and_controls(arguments),
        **_common(arguments),
    )


def _detect(
    client: Client, arguments: argparse.Namespace, lines: Sequence[Line]
) -> Sequence[DetectedLanguages]:
    return client.detect_language(
        _texts(lines),
        languages=arguments.languages or (),
        max_results=arguments.max_results,
        request_id=arguments.request_id,
    )


def _embed(
    client: Client, arguments: argparse.Namespace, lines: Sequence[Line]
) -> Sequence[Embedding]:
    options = {
        "pooling": arguments.pooling,
        "normalize": arguments.normalize,
        "dimensions": arguments.dimensions,
        "force_dimensions": arguments.force_dimensions,
        "prompt_name": arguments.prompt_name,
        "prompt": arguments.prompt,
        "data_type": arguments.data_type,
        **_common(arguments),
    }
    if not in_bulk(arguments):
        return client.embed(_texts(lines), **options)
    limit = arguments.call_timeout
    call = client.bulk_embed(_texts(lines), timeout_seconds=limit, **options)
    return results_of(lines, call, lambda line: client.embed(_texts([line]), **options)[0])


def _fill(
    client: Client, arguments: argparse.Namespace, lines: Sequence[Line]
) -> Sequence[FilledText]:
    return client.fill_mask(
        _texts(lines),
        arguments.top_k,
        candidates=arguments.candidate,
        offset_unit=arguments.offset_unit,
        joint=arguments.joint,
        **_common(arguments),
    )


def _fill_text(result: FilledText, arguments: argparse.Namespace) -> str:
    if arguments.joint:
        return _weighted(
            [
                (each.log_probability, " ".join(token.text for token in each.tokens))
                for each in result.fillings
            ]
        )
    masks = [[(each.probability, each.text) for each in mask.candidates] for mask in result.masks]
    return "\t|\t".join(map(_weighted, masks))


def _classify(
    client: Client, arguments: argparse.Namespace, lines: Sequence[Line]
) -> Sequence[ClassifiedText]:
    return client.classify(
        _texts(lines),
        [line.texts[1] for line in lines] if arguments.pairs else None,
        top_k=arguments.top_k,
        raw_scores=arguments.raw_scores,
        **_common(arguments),
    )


def _embed_sparse(
    client: Client, arguments: argparse.Namespace, lines: Sequence[Line]
) -> Sequence[SparseEmbedding]:
    return client.embed_sparse(
        _texts(lines),
        max_active_dims=arguments.max_active_dims,
        return_tokens=True,
        **_common(arguments),
    )


def _sparse_text(result: SparseEmbedding, arguments: argparse.Namespace) -> str:
    weights = zip(result.weights.tolist(), result.tokens, strict=True)
    return _weighted(sorted(weights, key=lambda weight: -weight[0]))


def _tokenize(
    client: Client, arguments: argparse.Namespace, lines: Sequence[Line]
) -> Sequence[Tokenization]:
    return client.tokenize(
        _texts(lines),
        model=arguments.model,
        side=arguments.side,
        offset_unit=arguments.offset_unit,
        text_normalization=arguments.text_normalization,
        request_id=arguments.request_id,
    )


def _tokenize_text(result: Tokenization, arguments: argparse.Namespace) -> str:
    return " ".join(str(t.id) if arguments.ids else one_line(t.text) for t in result.tokens)


def _weighted(pairs: Sequence[tuple[float, str]]) -> str:
    """Numbers with their tokens or labels, separated by tabs."""
    return "\t".join(f"{number:.4f} {one_line(text)}" for number, text in pairs)


def _common(arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "model": arguments.model,
        "text_normalization": arguments.text_normalization,
        "truncation": arguments.truncation,
        "request_id": arguments.request_id,
    }


def _languages_and_controls(arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "source_language": arguments.source_language,
        "target_language": arguments.target_language,
        "controls": dict(arguments.control),
    }


translate = LineCommand(
    _translate,
    _translation_text,
    ("hypotheses", "num_source_tokens", "truncation"),
    further_keys=lambda arguments: ("source_language",) if detects(arguments) else (),
    fields=_translation_fields,
)
score = LineCommand(
    _score,
    lambda result, _: f"{result.score:.4f}",
    ("score", "log_probability", "num_source_tokens", "truncation"),
    further_keys=lambda arguments: ("log_probabilities", "tokens") if arguments.tokens else (),
    columns=lambda _: ("source", "target"),
)
detect = LineCommand(
    _detect,
    lambda result, _: _weighted([(each.probability, each.language) for each in result.languages]),
    ("languages",),
)
embed = LineCommand(
    _embed,
    lambda result, _: " ".join(f"{x:.6g}" for x in result.vector.tolist()),
    ("vector", "scale", "num_tokens", "truncation"),
)
fill = LineCommand(_fill, _fill_text, ("masks", "fillings", "truncation"))
classify = LineCommand(
    _classify,
    lambda result, _: _weighted([(each.score, each.label) for each in result.labels]),
    ("labels", "truncation"),
    columns=lambda arguments: ("text", "text_pair") if arguments.pairs else ("text",),
)
embed_sparse = LineCommand(
    _embed_sparse, _sparse_text, ("token_ids", "weights", "tokens", "num_tokens", "truncation")
)
tokenize = LineCommand(_tokenize, _tokenize_text, ("tokens",))
