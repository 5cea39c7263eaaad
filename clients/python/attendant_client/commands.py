"""The subcommands of `attendant` about models, health and comparisons of texts.

A subcommand takes the parsed arguments and returns the exit code, 0 or 1.
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict

from attendant_client.client import Client
from attendant_client.comparisons import only_score
from attendant_client.errors import TextError
from attendant_client.line_commands import one_line
from attendant_client.line_output import complain
from attendant_client.model_page import languages, model_page
from attendant_client.model_results import ModelInfo
from attendant_client.printing import json_text, print_table


def similarity(client: Client, arguments: argparse.Namespace) -> int:
    """Print the cosine between the embeddings of two texts, or those of several texts."""
    query, texts = arguments.query, arguments.texts
    found = client.similarity(
        query,
        texts,
        top_k=arguments.top_k,
        model=arguments.model,
        text_normalization=arguments.text_normalization,
        truncation=arguments.truncation,
        request_id=arguments.request_id,
    ).raise_for_errors()
    if len(texts) == 1:
        cosine = only_score(found)
        print(json_text({"similarity": cosine}) if arguments.json else f"{cosine:.4f}")
        return 0
    scores = zip(found.indices.tolist(), found.scores.tolist(), strict=True)
    return _print_ranking(arguments, texts, list(scores), found.text_errors)


def rerank(client: Client, arguments: argparse.Namespace) -> int:
    """Print the scores of documents for a query, highest first."""
    found = client.rerank(
        arguments.query,
        arguments.texts,
        top_k=arguments.top_k,
        raw_scores=arguments.raw_scores,
        model=arguments.model,
        text_normalization=arguments.text_normalization,
        truncation=arguments.truncation,
        request_id=arguments.request_id,
    )
    scores = [(each.index, each.score) for each in found if each.error is None]
    return _print_ranking(arguments, arguments.texts, scores, found.errors)


def _print_ranking(
    arguments: argparse.Namespace,
    texts: Sequence[str],
    scores: Sequence[tuple[int, float]],
    errors: Sequence[TextError],
) -> int:
    """Print a line for each text with a score, and the faults of texts; return the exit code."""
    for index, score in scores:
        fields = {"index": index, "score": score, "text": texts[index]}
        print(json_text(fields) if arguments.json else f"{score:.4f}\t{one_line(texts[index])}")
    for error in errors:
        complain(f"text {(error.index or 0) + 1}: {error.message}")
    return 1 if errors else 0


def models(client: Client, arguments: argparse.Namespace) -> int:
    """Print one line for each model, or a page about one model."""
    if arguments.name is not None:
        model = client.model(arguments.name, request_id=arguments.request_id)
        print(json_text(asdict(model)) if arguments.json else model_page(model))
        return 0
    infos = client.models(request_id=arguments.request_id)
    if arguments.json:
        print(json_text([asdict(info) for info in infos]))
    else:
        print_table([_model_row(info, infos) for info in infos])
    return 0


def load(client: Client, arguments: argparse.Namespace) -> int:
    """Let the server load a bundle, and print the model."""
    info = client.load_model(arguments.name, request_id=arguments.request_id)
    print(json_text(asdict(info)) if arguments.json else f"{info.name}/{info.version}")
    return 0


def unload(client: Client, arguments: argparse.Namespace) -> int:
    """Let the server unload a model, and print its full name."""
    model = client.unload_model(arguments.name, request_id=arguments.request_id)
    print(json_text({"model": model}) if arguments.json else model)
    return 0


def health(client: Client, arguments: argparse.Namespace) -> int:
    """Print the health of a service or of the whole server; return 0 only if it is serving."""
    status = client.health(arguments.service, request_id=arguments.request_id)
    print(json_text({"status": status}) if arguments.json else status)
    return 0 if status == "serving" else 1


def _model_row(info: ModelInfo, infos: Sequence[ModelInfo]) -> list[str]:
    name = f"{info.name}/{info.version}"
    return [name, info.kind, languages(info), info.precision, info.state, _default(info, infos)]


def _default(info: ModelInfo, infos: Sequence[ModelInfo]) -> str:
    """Which calls get the model without its full name."""
    if info.is_default_of_kind:
        return "default"
    num_versions = sum(each.name == info.name for each in infos)
    return "default version" if info.is_default and num_versions > 1 else ""
