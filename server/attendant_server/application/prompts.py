"""The prompt that a model reads before every text of a call."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from attendant_server.application.catalog import ServedModel
from attendant_server.application.jobs import JobRunner
from attendant_server.application.tokenization_options import normalizes
from attendant_server.errors import InvalidRequest
from attendant_server.tokenizer import TextTokenizer, TokenizerError


@dataclass(frozen=True, slots=True)
class PromptChoice:
    """The prompt that a request chooses, by its name or as a text; None twice for the default."""

    name: str | None = None
    """A name of one of the model's prompts; empty for no prompt."""
    text: str | None = None
    field: str = "prompt_name"
    """The field of the name, for messages."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt of one call."""

    text: str
    num_tokens: int | None = None
    """Number of first tokens that poolings leave out; None for that of the default prompt."""

    def num_tokens_of(self, num_texts: int) -> Sequence[int | None]:
        """The number of tokens for each text, as `EmbedCall` takes them."""
        return () if self.num_tokens is None else [self.num_tokens] * num_texts

    def before(self, texts: Sequence[str]) -> Sequence[str]:
        """The texts with the prompt before each."""
        return [self.text + text for text in texts] if self.text else texts


async def chosen_prompt(
    choice: PromptChoice,
    model: ServedModel,
    jobs: JobRunner,
    max_characters: int,
    text_normalization: int,
) -> Prompt:
    """The prompt of a call; raises InvalidRequest for an unknown name or a long text.

    ``text_normalization`` is a number of `TextNormalization`, 0 for the default.
    """
    description = model.description
    default = description.prompts.get(description.default_prompt, "")
    text = _chosen_text(choice, model, default, max_characters)
    if text == default or not description.excludes_prompt:
        return Prompt(text)
    count = partial(_num_tokens, model.source_tokenizer, text, text_normalization)
    return Prompt(text, await jobs.run_for(len(text), count))


def _chosen_text(
    choice: PromptChoice, model: ServedModel, default: str, max_characters: int
) -> str:
    if choice.name is not None and choice.text is not None:
        raise InvalidRequest("prompt", "must be left out if prompt_name is given")
    if choice.text is not None:
        if len(choice.text) > max_characters:
            problem = f"at most {max_characters} characters, got {len(choice.text)}"
            raise InvalidRequest("prompt", problem)
        return choice.text
    if choice.name is None:
        return default
    prompts = model.description.prompts
    if choice.name and choice.name not in prompts:
        names = ", ".join(sorted(prompts)) or "none"
        raise InvalidRequest(choice.field, f"is unknown; the prompts of the model are: {names}")
    return prompts.get(choice.name, "")


def _num_tokens(tokenizer: TextTokenizer, prompt: str, text_normalization: int) -> int:
    """Number of tokens of a prompt and of the special tokens before it; 0 without a prompt."""
    if not prompt:
        return 0
    try:
        tokens = list(tokenizer.encode(prompt, None, normalizes(tokenizer, text_normalization)))
    except TokenizerError:
        raise InvalidRequest("prompt", "cannot be tokenized") from None
    return len(tokens) - (tokens[-1].is_special if tokens else 0)
