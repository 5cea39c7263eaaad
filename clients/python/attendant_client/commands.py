"""The subcommands of `attendant`: each reads texts, calls a client and prints the results.

A subcommand takes the parsed arguments and returns the exit code, 0 or 1.
"""

import argparse
import io
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import islice
from typing import Any, TypeVar

import numpy as np

from attendant_client.client import Client
from attendant_client.errors import TextError
from attendant_client.model_page import languages, model_page
from attendant_client.options import Languages, SearchOptions, TextOptions
from attendant_client.results import FloatArray, MaskFill, ModelInfo, Translation

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
            print(_json(asdict(result)) if arguments.json else line)
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
            _print_vectors(embeddings.vectors, arguments)
        else:
            blocks.append(embeddings.vectors)
    if arguments.output is not None:
        _save(blocks, arguments.output)
    return 0


def similarity(client: Client, arguments: argparse.Namespace) -> int:
    """Print the cosine between the embeddings of two texts."""
    a, b = arguments.texts
    cosine = client.similarity(a, b, model=arguments.model, truncation=arguments.truncation)
    print(_json({"similarity": cosine}) if arguments.json else f"{cosine:.4f}")
    return 0


def fill(client: Client, arguments: argparse.Namespace) -> int:
    """Print candidates for every mask, with a blank line between masks."""
    all_good, separator = True, ""
    for start, texts in _batches(_lines(arguments), arguments):
        filled = client.fill_mask(texts, arguments.top_k, **_text_options(arguments))
        all_good &= _are_good(start, [result.error for result in filled])
        if arguments.json:
            for result in filled:
                print(_json(asdict(result)))
            continue
        for mask in (mask for result in filled for mask in result.masks):
            print(separator, _mask_lines(mask), sep="")
            separator = "\n"
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
        for result in classified:
            if arguments.json:
                print(_json(asdict(result)))
                continue
            lines = [f"{each.score:.4f}\t{each.label}" for each in result.labels]
            print(separator + "\n".join(lines))
            separator = "\n"
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
            print(_json(asdict(result)) if arguments.json else " ".join(shown))
    return 0 if all_good else 1


def models(client: Client, arguments: argparse.Namespace) -> int:
    """Print one line for each model, or a page about one model."""
    if arguments.name is not None:
        model = client.model(arguments.name)
        print(_json(asdict(model)) if arguments.json else model_page(model))
        return 0
    infos = client.models()
    if arguments.json:
        print(_json([asdict(info) for info in infos]))
    else:
        _print_table([_model_row(info) for info in infos])
    return 0


def health(client: Client, arguments: argparse.Namespace) -> int:
    """Print the health of a service or of the whole server; return 0 only if it is serving."""
    status = client.health(arguments.service)
    print(_json({"status": status}) if arguments.json else status)
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
        print(_json({"source": text} | fields))
        return
    hypotheses = () if translation is None else translation.hypotheses
    for hypothesis in hypotheses:
        prefix = f"{hypothesis.score:.4f}\t" if arguments.scores else ""
        print(f"{prefix}{hypothesis.text}")
    if not hypotheses:
        print()


def _print_vectors(vectors: FloatArray, arguments: argparse.Namespace) -> None:
    for vector in vectors:  # (dimension,)
        numbers = vector.tolist()
        print(_json(numbers) if arguments.json else " ".join(f"{x:.6g}" for x in numbers))


def _save(blocks: list[FloatArray], path: str) -> None:
    if not blocks:
        raise ValueError("there is no text to embed")
    with open(path, "wb") as file:
        np.save(file, np.concatenate(blocks))


def _mask_lines(mask: MaskFill) -> str:
    return "\n".join(
        f"{candidate.probability:.4f}\t{candidate.text}" for candidate in mask.candidates
    )


def _model_row(info: ModelInfo) -> list[str]:
    name = f"{info.name}/{info.version}"
    default = "default" if info.is_default else ""
    return [name, info.kind, languages(info), info.precision, info.state, default]


def _print_table(rows: list[list[str]]) -> None:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        print("  ".join(cells).rstrip())


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> object:
    if isinstance(value, TextError):
        return {"index": value.index, "code": value.code.name, "message": value.message}
    raise TypeError(f"{type(value).__name__} has no JSON")
