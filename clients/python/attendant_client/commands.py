"""The subcommands of `attendant` about models, health and the similarity of two texts.

A subcommand takes the parsed arguments and returns the exit code, 0 or 1.
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict

from attendant_client.client import Client
from attendant_client.model_page import languages, model_page
from attendant_client.model_results import ModelInfo
from attendant_client.printing import json_text, print_table


def similarity(client: Client, arguments: argparse.Namespace) -> int:
    """Print the cosine between the embeddings of two texts."""
    a, b = arguments.texts
    cosine = client.similarity(
        a,
        b,
        model=arguments.model,
        truncation=arguments.truncation,
        request_id=arguments.request_id,
    )
    print(json_text({"similarity": cosine}) if arguments.json else f"{cosine:.4f}")
    return 0


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
