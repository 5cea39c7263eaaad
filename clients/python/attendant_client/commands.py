"""The subcommands of `attendant`: each reads texts, calls a client and prints the results.

A subcommand takes the parsed arguments and returns the exit code, 0 or 1.
"""

import argparse
import io
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import islice
from typing import TypeVar

import numpy as np

from attendant_client.client import Client
from attendant_client.errors import TextError
from attendant_client.model_page import languages, model_page
from attendant_client.options import Languages, SearchOptions, TextOptions
from attendant_client.printing import (
    greatest_first,
    json_text,
    print_scores,
    print_table,
    print_vectors,
)
from attendant_client.results import FloatArray, ModelInfo, Translation

Item = TypeVar("Item")


def complain(message: str) -> None:
    """Write one line to the standard error."""
    print(f"attendant: {' '.join(message.split())}", file=sys.stderr)


def translate(client: Client, arguments: argparse.Namespace) -> int:
    """Print translations, line by line; a blank line for a text that is blank or failed."""
    all_good = True
    for start, texts in _batches(_lines(arguments), arguments):
        translations = _translate_batch(client, texts, arguments)
        for text, translation in zip(texts, translations, strict=True):
            _print_translation(text, translation, arguments)
        sys.stdout.flush()
        all_good &= _are_good(start, [found.error if found else None for found in translations])
    return 0 if all_good else 1


def stream(client: Client, arguments: argparse.Namespace) -> int:
    """Print translations one after another, each while it is decoded."""
    for text in _lines(arguments):
        if text.strip():
            with client.stream_translate(
                text,
                model=arguments.model,
                truncation=arguments.truncation,
                **_search_options(arguments),
                **_languages(arguments),
            ) as deltas:
                for delta in deltas:
                    print(delta, end="", flush=True)
        print(flush=True)
    return 0


def score(client: Client, arguments: argparse.Namespace) -> int:
    """Print the score of every pair of a text and its translation."""
    all_good = True
    for start, pairs in _batches(_pairs(arguments), arguments):
        scores = client.score(
            pairs,
            length_penalty=arguments.length_penalty,
            **_text_options(arguments),
            **_languages(arguments),
        )
        all_good &= _are_good(start, [result.error for result in scores])
        for result in scores:
            line = f"{result.score:.4f}" if result.error is None else ""
            print(json_text(asdict(result)) if arguments.json else line)
    return 0 if all_good else 1


def embed(client: Client, arguments: argparse.Namespace) -> int:
    """Print one vector for each text, or write all vectors to a NumPy file."""
    blocks = []
    for start, texts in _batches(_lines(arguments), arguments):
        embeddings = client.embed(
            texts,
            errors="return",
            model=arguments.model,
            pooling=arguments.pooling,
            normalize=arguments.normalize,
            truncation=arguments.truncation,
        )
        faults = [result.error for result in embeddings.results]
        if not _are_good(start, faults):
            return 1
        if arguments.output is None:
            print_vectors(embeddings.vectors, arguments)
        else:
            blocks.append(embeddings.vectors)
    if arguments.output is not None:
        _save(blocks, arguments.output)
    return 0


def similarity(client: Client, arguments: argparse.Namespace) -> int:
    """Print the cosine between the embeddings of two texts."""
    a, b = arguments.texts
    cosine = client.similarity(a, b, model=arguments.model, truncation=arguments.truncation)
    print(json_text({"similarity": cosine}) if arguments.json else f"{cosine:.4f}")
    return 0


def fill(client: Client, arguments: argparse.Namespace) -> int:
    """Print candidates for every mask, with a blank line between masks."""
    all_good, separator = True, ""
    for start, texts in _batches(_lines(arguments), arguments):
        filled = client.fill_mask(texts, arguments.top_k, **_text_options(arguments))
        all_good &= _are_good(start, [result.error for result in filled])
        if arguments.json:
            for result in filled:
                print(json_text(asdict(result)))
            continue
        masks = (mask for result in filled for mask in result.masks)
        separator = print_scores(
            arguments,
            separator,
            masks,
            lambda mask: [(each.probability, each.text) for each in mask.candidates],
        )
    return 0 if all_good else 1


def classify(client: Client, arguments: argparse.Namespace) -> int:
    """Print the scores of labels, with a blank line between texts."""
    all_good, separator = True, ""
    rows: Iterable[tuple[str, ...]] = (
        _pairs(arguments, "two texts") if arguments.pairs else zip(_lines(arguments), strict=True)
    )
    for start, batch in _batches(rows, arguments):
        texts, *second = (list(column) for column in zip(*batch, strict=True))
        classified = client.classify(
            texts,
            second[0] if second else None,
            top_k=arguments.top_k,
            raw_scores=arguments.raw_scores,
            **_text_options(arguments),
        )
        all_good &= _are_good(start, [result.error for result in classified])
        separator = print_scores(
            arguments,
            separator,
            classified,
            lambda result: [(each.score, each.label) for each in result.labels],
        )
    return 0 if all_good else 1


def embed_sparse(client: Client, arguments: argparse.Namespace) -> int:
    """Print weights of tokens, greatest first, with a blank line between texts."""
    all_good, separator = True, ""
    for start, texts in _batches(_lines(arguments), arguments):
        embedded = client.embed_sparse(
            texts,
            max_active_dims=arguments.max_active_dims,
            return_tokens=True,
            **_text_options(arguments),
        )
        all_good &= _are_good(start, [result.error for result in embedded])
        separator = print_scores(arguments, separator, embedded, greatest_first)
    return 0 if all_good else 1


def tokenize(client: Client, arguments: argparse.Namespace) -> int:
    """Print the tokens of every text, or their ids."""
    all_good = True
    for start, texts in _batches(_lines(arguments), arguments):
        tokenized = client.tokenize(
            texts, model=arguments.model, side=arguments.side, errors="return"
        )
        all_good &= _are_good(start, [result.error for result in tokenized])
        for result in tokenized:
            shown = [str(token.id) if arguments.ids else token.text for token in result.tokens]
            print(json_text(asdict(result)) if arguments.json else " ".join(shown))
    return 0 if all_good else 1


def models(client: Client, arguments: argparse.Namespace) -> int:
    """Print one line for each model, or a page about one model."""
    if arguments.name is not None:
        model = client.model(arguments.name)
        print(json_text(asdict(model)) if arguments.json else model_page(model))
        return 0
    infos = client.models()
    if arguments.json:
        print(json_text([asdict(info) for info in infos]))
    else:
        print_table([_model_row(info) for info in infos])
    return 0


def load(client: Client, arguments: argparse.Namespace) -> int:
    """Let the server load a bundle, and print the model."""
    info = client.load_model(arguments.name)
    print(json_text(asdict(info)) if arguments.json else f"{info.name}/{info.version}")
    return 0


def unload(client: Client, arguments: argparse.Namespace) -> int:
    """Let the server unload a model, and print its full name."""
    model = client.unload_model(arguments.name)
    print(json_text({"model": model}) if arguments.json else model)
    return 0


def health(client: Client, arguments: argparse.Namespace) -> int:
    """Print the health of a service or of the whole server; return 0 only if it is serving."""
    status = client.health(arguments.service)
    print(json_text({"status": status}) if arguments.json else status)
    return 0 if status == "serving" else 1


def _lines(arguments: argparse.Namespace) -> Iterable[str]:
    """Return the texts of the command line, or else the lines of the standard input."""
    return arguments.texts or _standard_input()


def _pairs(
    arguments: argparse.Namespace, between: str = "source and translation"
) -> Iterator[tuple[str, str]]:
    if arguments.texts:
        source, target = arguments.texts
        yield source, target
        return
    for number, line in enumerate(_standard_input(), 1):
        source, tab, target = line.partition("\t")
        if not tab:
            raise ValueError(f"line {number} has no tab between {between}")
        yield source, target


def _standard_input() -> Iterator[str]:
    if sys.stdin is None:
        return
    # Only line feeds end lines, so that there are as many lines out as in.
    reader = io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8-sig", newline="\n")
    try:
        for line in reader:
            yield line.removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise ValueError("the standard input is not UTF-8") from error
    finally:
        reader.detach()


def _batches(
    items: Iterable[Item], arguments: argparse.Namespace
) -> Iterator[tuple[int, list[Item]]]:
    """Cut items into one list per call, each with the number of its first item, from 1."""
    waits_for_lines = not arguments.texts and sys.stdin is not None and sys.stdin.isatty()
    size = 1 if waits_for_lines else arguments.batch_size
    remaining, number = iter(items), 1
    while batch := list(islice(remaining, size)):
        yield number, batch
        number += len(batch)


def _translate_batch(
    client: Client, texts: list[str], arguments: argparse.Namespace
) -> list[Translation | None]:
    """Translate the texts that are not blank; the result of a blank text is None."""
    wanted = [text for text in texts if text.strip()]
    if not wanted:
        return [None] * len(texts)
    found = iter(
        client.translate(
            wanted,
            **_search_options(arguments),
            **_text_options(arguments),
            **_languages(arguments),
        )
    )
    return [next(found) if text.strip() else None for text in texts]


def _search_options(arguments: argparse.Namespace) -> SearchOptions:
    return {
        "beam_size": arguments.beam,
        "num_hypotheses": arguments.num_hypotheses,
        "length_penalty": arguments.length_penalty,
        "max_output_tokens": arguments.max_output_tokens,
    }


def _languages(arguments: argparse.Namespace) -> Languages:
    return {
        "source_language": arguments.source_language,
        "target_language": arguments.target_language,
    }


def _text_options(arguments: argparse.Namespace) -> TextOptions:
    return {"model": arguments.model, "truncation": arguments.truncation, "errors": "return"}


def _are_good(start: int, errors: Iterable[TextError | None]) -> bool:
    """Print the errors of failed texts, numbered from `start`; return whether no text failed."""
    faults = [(number, error) for number, error in enumerate(errors, start) if error is not None]
    for number, error in faults:
        complain(f"text {number}: {error.message}")
    return not faults


def _print_translation(
    text: str, translation: Translation | None, arguments: argparse.Namespace
) -> None:
    if arguments.json:
        fields = {"hypotheses": []} if translation is None else asdict(translation)
        print(json_text({"source": text} | fields))
        return
    hypotheses = () if translation is None else translation.hypotheses
    for hypothesis in hypotheses:
        prefix = f"{hypothesis.score:.4f}\t" if arguments.scores else ""
        print(f"{prefix}{hypothesis.text}")
    if not hypotheses:
        print()


def _save(blocks: list[FloatArray], path: str) -> None:
    if not blocks:
        raise ValueError("there is no text to embed")
    with open(path, "wb") as file:
        np.save(file, np.concatenate(blocks))


def _model_row(info: ModelInfo) -> list[str]:
    name = f"{info.name}/{info.version}"
    default = "default" if info.is_default else ""
    return [name, info.kind, languages(info), info.precision, info.state, default]
