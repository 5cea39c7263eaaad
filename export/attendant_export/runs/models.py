"""Creates the model of a run, or loads its best weights."""

from pathlib import Path

from tokenizers import Tokenizer

from attendant_export.data.pair_tokenizer import PairTokenizer, load_tokenizers
from attendant_export.data.tokenizer import TOKENIZER, load_tokenizer
from attendant_export.models.encoder import Encoder
from attendant_export.models.encoder_decoder import EncoderDecoder
from attendant_export.models.special_tokens import EncoderTokens
from attendant_export.runs import checkpoint
from attendant_export.runs.config import RunConfig, read_config


def new_model(config: RunConfig) -> EncoderDecoder | Encoder:
    """An untrained model."""
    if isinstance(config.tokens, EncoderTokens):
        return Encoder(config.architecture, config.tokens, config.dropout)
    return EncoderDecoder(config.architecture, config.tokens, config.dropout)


def load_model(run_dir: Path) -> tuple[EncoderDecoder | Encoder, Tokenizer]:
    """The best model of a run folder, in evaluation mode, and the tokenizer of its sources."""
    model = new_model(read_config(run_dir)).eval()
    checkpoint.load_weights(checkpoint.find_weights(run_dir), model)
    return model, load_tokenizer(run_dir / TOKENIZER)


def load_pair_tokenizer(run_dir: Path) -> PairTokenizer:
    """The tokenizers of the run of a translation model."""
    return PairTokenizer.of_run(*load_tokenizers(run_dir))
