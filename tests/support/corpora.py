"""The translation of a corpus as a program of its own, which tests kill. Imports no PyTorch."""

import sys
from pathlib import Path

from attendant_client import Client
from attendant_export.corpora import translation
from attendant_export.corpora.local_server import local_server
from attendant_export.corpora.output import PairOutput
from attendant_export.corpora.selection import PairSelection
from attendant_export.corpora.texts import CorpusFiles
from attendant_export.corpora.translator import Search, Translator


def write_samples(text: Path, output: Path, target: str) -> None:
    """Write a sampled translation by ``en-de`` of each text, or continue to."""
    task = translation.CorpusTranslation(CorpusFiles((text,)), PairSelection())
    search = Search(sampling_temperature=1.0, seed=3)
    with Client(target) as client, PairOutput(output).opened(dict) as opened:
        task.write(Translator(client, "en-de", search), task.check(), opened)


def main(bundle: str, text: str, output: str) -> None:
    """Write samples by a server of its own, whose target it prints."""
    translation.SAVE_SECONDS = 0.0  # Write the record after each text.
    with local_server(Path(bundle), num_threads=1) as target:
        print(target, flush=True)
        write_samples(Path(text), Path(output), target)


if __name__ == "__main__":
    main(*sys.argv[1:])
