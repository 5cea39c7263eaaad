"""The ``attendant-export`` command."""

import argparse
from pathlib import Path

from attendant_export.training import TrainingOptions
from attendant_export.transformer import TransformerConfig


def _add_training_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--max-minutes", type=float)
    parser.add_argument("--max-epochs", type=int)
    parser.add_argument("--max-steps", type=int)
    parser.add_argument("--validate-every-steps", type=int, default=1000)


def main() -> None:
    from attendant_export.translation_training import TranslationData, train_translation

    parser = argparse.ArgumentParser()
    _add_training_arguments(parser)
    a = parser.parse_args()
    t = a.data_dir / "tatoeba"
    train_translation(
        TransformerConfig(vocab_size=8000),
        TranslationData(t / "tatoeba.en-de.train.tsv.gz", t / "tatoeba.en-de.valid.tsv.gz"),
        TrainingOptions(
            max_minutes=a.max_minutes,
            max_epochs=a.max_epochs,
            max_steps=a.max_steps,
            validate_every_steps=a.validate_every_steps,
        ),
        a.run_dir,
    )


if __name__ == "__main__":
    main()
