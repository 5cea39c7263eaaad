"""The command that translates a corpus into sentence pairs."""

import argparse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from attendant_client import Client
from attendant_client.connection_flags import connection_options

from attendant_export.bundle.manifest import MANIFEST, read_manifest
from attendant_export.commands.data_files import data_file
from attendant_export.corpora.local_server import local_server
from attendant_export.corpora.output import PairOutput
from attendant_export.corpora.selection import PairSelection
from attendant_export.corpora.texts import CorpusFiles
from attendant_export.corpora.translation import CorpusTranslation, describe
from attendant_export.corpora.translator import Search, Translator
from attendant_export.data.pair_filters import LengthFilters, parse_text_filters
from attendant_export.data.text_files import digest
from attendant_export.stopping import stopped_by_signals

DECIDING = (
    "model",
    "column",
    "backward",
    "source_language",
    "target_language",
    "beam_size",
    "sampling_temperature",
    "top_k",
    "seed",
    "min_score",
    "filter",
    "max_length_ratio",
    "max_tokens",
)
"""The options that pairs depend on, besides texts and bundle."""


def run_translate_corpus(args: argparse.Namespace) -> None:
    """Translate a corpus into pairs, or continue an interrupted translation."""
    _check_place(args)
    search, output = _search(args), PairOutput(args.output)
    task = CorpusTranslation(
        CorpusFiles(
            tuple(data_file(args, name, or_folder=True) for name in args.text), args.column
        ),
        PairSelection(
            parse_text_filters(args.filter),
            LengthFilters(args.max_tokens, args.max_length_ratio),
            args.min_score,
        ),
        args.backward,
        args.skip_bad_lines,
    )
    if args.bundle is not None:
        read_manifest(args.bundle)
    with (
        stopped_by_signals(),
        output.opened(lambda: _settings(args, task.corpus)) as opened,
    ):
        if not opened.is_complete:
            check = task.check()
            with _translator(args, search, opened.record.model) as translator:
                opened.record.model = translator.model
                task.write(translator, check, opened)
        print(f"{args.output}: {describe(opened.record)}")


def _check_place(args: argparse.Namespace) -> None:
    """Raise ValueError for options that do not belong to ``--bundle`` or ``--target``."""
    if args.target is not None and not args.model:
        raise ValueError("--target: needs --model, the name of the model")
    if args.target is not None and args.num_threads is not None:
        raise ValueError("--num-threads: is for --bundle only")
    if args.bundle is not None and args.model:
        raise ValueError("--model: is for --target only")


def _search(args: argparse.Namespace) -> Search:
    return Search(
        args.beam_size,
        args.sampling_temperature,
        args.top_k,
        args.seed,
        args.source_language,
        args.target_language,
    )


@contextmanager
def _translator(args: argparse.Namespace, search: Search, begun_with: str) -> Iterator[Translator]:
    """The translator of one version: that of ``begun_with``, if a running server is continued."""
    if args.target is not None:
        with Client(args.target, **connection_options(args)) as client:
            yield Translator(client, begun_with or args.model, search).resolved()
        return
    bundle = args.bundle.resolve()
    with local_server(bundle, args.num_threads) as target, Client(target) as client:
        yield Translator(client, f"{bundle.parent.name}/{bundle.name}", search).resolved()


def _settings(args: argparse.Namespace, corpus: CorpusFiles) -> Mapping[str, Any]:
    """All that the pairs depend on, by the names of options."""
    return {
        "--text": [[file.name, digest(file)] for file in corpus.files],
        "--bundle": None if args.bundle is None else digest(args.bundle / MANIFEST),
        **{"--" + name.replace("_", "-"): getattr(args, name) for name in DECIDING},
    }
