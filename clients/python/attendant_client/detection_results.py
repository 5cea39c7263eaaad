"""The results of detections of languages."""

from dataclasses import dataclass

from attendant_client.errors import TextError
from attendant_client.results import TextResult


@dataclass(frozen=True, slots=True)
class LanguageProbability:
    """A BCP 47 tag, and its probability among the languages that are possible, 0 to 1."""

    language: str
    probability: float


@dataclass(frozen=True, slots=True, repr=False)
class DetectedLanguages(TextResult):
    """The likeliest languages of one text, best first, or an error and no languages.

    `languages` is also empty for a text without letters or without any trait of a language.
    """

    languages: tuple[LanguageProbability, ...]
    error: TextError | None

    @property
    def language(self) -> str:
        """The tag of the likeliest language, "" for none. Raises the text's error if it has one."""
        languages = self.raise_for_errors().languages
        return languages[0].language if languages else ""

    def _shown(self) -> str:
        found = {each.language: round(each.probability, 4) for each in self.languages}
        return f"languages={found}"
