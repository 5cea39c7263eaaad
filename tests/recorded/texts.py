"""The texts of the recorded calls."""

import unicodedata

TINY_ENGLISH = (
    "The old dog sees the king.",
    "The baker finds the teacher.",
    "The little man calls the dog.",
    "The good king greets the baker.",
)
"""Sentences like those that the tiny models were trained on."""
TINY_PAIRS = (
    ("The old dog sees the king.", "Der alte Hund sieht den König."),
    ("The baker finds the teacher.", "Der Bäcker findet den Lehrer."),
    ("The little man calls the dog.", "Der Hund grüßt den König."),
)
ENGLISH = (
    "Where is the nearest train station?",
    "I have never seen such a beautiful garden.",
    "Tom said that he would come back tomorrow if it did not rain.",
    "She reads.",
)
GERMAN = (
    "Wo ist der nächste Bahnhof?",
    "Das Mädchen ist schön und groß für fünf Jahre.",
    "Wenn es morgen nicht regnet, fahren wir mit dem Fahrrad an den See.",
)
GERMAN_PAIRS = (
    (ENGLISH[0], "Wo ist der nächste Bahnhof?"),
    (ENGLISH[1], "Ich habe noch nie einen so schönen Garten gesehen."),
    (ENGLISH[3], "Sie liest."),
    (ENGLISH[3], "Der Zug fährt um acht Uhr ab."),
)

BLANK = {"empty": "", "a space": " ", "white space": " \t\r\n\u00a0\u2003\u3000"}
ODD = {
    "lone hyphen": "-",
    "ellipsis": "…",
    "quotation mark": '"',
    "punctuation": "?! ,;: () [] {} / \\ & % $ # @ * + = ~ ^ |",
    "digits": "I have 25 apples, 1,000.50 euros and 3 of 4 keys.",
    "capitals": "THE OLD DOG SEES THE KING.",
    "no final punctuation": "the old dog sees the king",
    "one word": "Hello",
    "two sentences": "The old dog sees the king. The baker finds the teacher!",
    "lines": "The old dog\nsees\r\n\tthe king.\n",
    "spaces around": "   The  old   dog sees the king.  ",
    "unknown script": "犬が吠えている",
    "unknown letter first": "Ωmega is the last letter.",
    "emoji": "😀",
    "emoji in a sentence": "The dog 🐶 sees the king 👑.",
    "emoji family": "👩\u200d👩\u200d👧\u200d👦 dog",
    "composed accents": "Das Mädchen im Café grüßt schön.",
    "decomposed accents": unicodedata.normalize("NFD", "Das Mädchen im Café grüßt schön."),
    "stacked accents": "The do\u0301\u0302\u0303g sees.",
    "ligature and full width": "The ﬁne ｄｏｇ №５ sees ½ king.",
    "soft hyphens": "Meine Mut\u00adter ar\u00adbei\u00adtet im Kran\u00adken\u00adhaus.",
    "zero width characters": "The\u200b dog\u200c se\u200des the king.",
    "byte order mark": "\ufeffThe dog sees the king.",
    "right to left": "\u202eThe dog.\u202c שלום",
    "control characters": "\x00\x01The \x7fdog.\x1b[31m",
    "last code point": "\U0010ffff \ue000 dog",
    "special tokens of translation": "<s> The dog </s> <pad> <unk> >>fra<< sees.",
    "special tokens of BERT": "[CLS] The dog [SEP] [PAD] [UNK] sees.",
    "byte and word marks": "▁The ▁dog <0x41> ##sees the ##king.",
    "format strings": "%s %d {} {0} dog <b>' OR 1=1 --",
    "address": "See https://example.com/a?b=c#d or mail to king@example.com.",
    "one long word": "Donaudampfschifffahrtsgesellschaftskapitän",
}
"""Unusual texts by property. All fit the limit of the smallest model."""
LONG = "The old dog sees the king and the baker finds the teacher. " * 30
"""A text with more tokens than the limit of any model."""
UNCUT_WORD = "a" * 20_000
"""A single word with the maximum number of characters of a text."""
NUM_MAX_CHARACTERS = 20_000
NUM_MAX_TEXTS = 256
