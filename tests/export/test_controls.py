"""Options of controls: their form, and the tokens that they name."""

import pytest
from attendant.v1.architecture_pb2 import Architecture, Embeddings
from attendant_export.bundle.controls import control_messages, describe_control, read_control
from tokenizers import Tokenizer, models, pre_tokenizers

VOCABULARY = ["<unk>", "\u2581", "a", "b", "ab", "c", "\u2581c", "<new>"]


def tokenizer() -> Tokenizer:
    ids = {text: i for i, text in enumerate(VOCABULARY)}
    found = Tokenizer(models.BPE(ids, [("\u2581", "c")], unk_token="<unk>"))
    found.pre_tokenizer = pre_tokenizers.Metaspace()
    found.add_special_tokens(["<new>", "<late>"])
    return found


def messages(*options: str) -> list:
    size = Embeddings(vocab_size=len(VOCABULARY))
    architecture = Architecture(source_embeddings=size, target_embeddings=size)
    read = map(read_control, options)
    return list(control_messages(read, tokenizer(), tokenizer(), architecture))


def test_an_option_states_values_tokens_place_default_and_description():
    [control] = messages("tone:warm=<new>,both=<new> a,plain=;default=warm;description=How: it is")
    assert [list(value.source_prefix_ids) for value in control.values] == [[7], [7, 1, 2], []]
    assert describe_control(control) == "tone: warm, both, plain, default warm (How: it is)"
    [after] = messages("tone:warm=<new>;place=source-end")
    assert list(after.values[0].source_suffix_ids) == [7]
    [target] = messages("tone:warm=<new>;place=target")
    assert list(target.values[0].forced_target_ids) == [7]


@pytest.mark.parametrize(("token", "ids"), [("<new>", [7]), ("c", [6]), ("a", [1, 2])])
def test_a_token_has_the_ids_with_which_a_text_begins(token, ids):
    [control] = messages(f"tone:warm={token}")
    assert list(control.values[0].source_prefix_ids) == ids
    assert tokenizer().encode(f"{token} b").ids[: len(ids)] == ids


@pytest.mark.parametrize(
    ("option", "problem"),
    [
        ("tone", "want NAME:VALUE=TOKEN"),
        ("tone:warm", "want NAME:VALUE=TOKEN"),
        ("tone:warm=a,warm=b", "each value once"),
        ("tone:warm=a;default=warm;default=warm", "each setting once"),
        ("tone:warm=a;size=1", "each setting once"),
        ("tone:warm=a;place=end", "place must be one of source, source-end, target"),
        ("tone:warm=a;default=cold", "the default is not among the values"),
        ("Tone:warm=a", r"a name does not match \[a-z\]"),
        ("tone:=a", r"a name does not match \[a-z\]"),
        ("tone:warm=<old>", "--control tone: the vocabulary has no token <old>"),
        ("tone:warm=<late>", "--control tone: the vocabulary has no token <late>"),
        ("tone:warm=ab", "--control tone: the tokenizer splits ab into"),
    ],
)
def test_a_bad_option_is_refused_with_its_problem(option, problem):
    with pytest.raises(ValueError, match=problem):
        messages(option)
