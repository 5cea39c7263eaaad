"""Each rule of manifests rejects invalid manifests with a reason."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from attendant_manifest import ManifestError, parse_manifest
from attendant_manifest.rules import problems

from tests.support.manifests import decoder_step, translation_manifest

Json = dict[str, Any]
Change = Callable[[Json], object]


def problem_of(change: Change) -> str:
    """The first problem of the small manifest after a change."""
    manifest = translation_manifest()
    change(manifest)
    try:
        return next(problems(parse_manifest(json.dumps(manifest))), "none")
    except ManifestError as error:
        return str(error)


def set_path(path: str) -> Change:
    def change(manifest: Json) -> None:
        manifest["files"][0]["path"] = path
        manifest["source_tokenizer"] = manifest["target_tokenizer"] = path

    return change


def set_key(key: str, value: Any) -> Change:
    return lambda manifest: manifest.update({key: value})


def set_part(*keys: str, **changes: Any) -> Change:
    return lambda manifest: _part(manifest, keys).update(changes)


def drop(*keys: str) -> Change:
    return lambda manifest: _part(manifest, keys[:-1]).pop(keys[-1])


def with_aligners(*heads: Json) -> Change:
    """Let every precision have an aligner, and the manifest these heads."""

    def change(manifest: Json) -> None:
        manifest["alignment"] = {"heads": list(heads)}
        for precision in manifest["precisions"]:
            precision["aligner"] = precision["scorer"]

    return change


def with_an_unlisted_glossary(manifest: Json) -> None:
    with_aligners({})(manifest)
    for group in manifest["architecture"]["decoder"]["groups"]:
        group["cross_attention"] = {"num_heads": 1}
    manifest["glossaries"] = ["animals"]


def _part(manifest: Json, keys: tuple[str, ...]) -> Json:
    for key in keys:
        manifest = manifest[key]
    return manifest


def first_step(manifest: Json) -> Json:
    step: Json = manifest["precisions"][0]["steps"][0]
    return step


def set_step(**changes: Any) -> Change:
    return lambda manifest: first_step(manifest).update(changes)


def set_state(number: int, **changes: Any) -> Change:
    return lambda manifest: first_step(manifest)["states"][number].update(changes)


def set_inputs(**changes: Any) -> Change:
    return lambda manifest: first_step(manifest)["inputs"].update(changes)


def set_file(**changes: Any) -> Change:
    return lambda manifest: manifest["files"][0].update(changes)


def set_layers(**changes: Any) -> Change:
    return lambda m: m["architecture"]["decoder"]["groups"][0].update(changes)


def add_shortlist(output: str) -> Change:
    """Give the step a shortlist, which comes from the encoder's ``output``."""

    def change(manifest: Json) -> None:
        step = first_step(manifest)
        step["inputs"] |= {"shortlist": "shortlist", "shortlist_mask": "mask"}
        step["graph"]["inputs"] += ["shortlist", "mask"]
        general = decoder_step(step["graph"]["path"]) | {"name": "general"}
        manifest["precisions"][0] |= {"steps": [general, step], "shortlist_output": output}

    return change


def two_tokens(manifest: Json) -> None:
    """Make the step decode two tokens, but without the second output and bias of each kind."""
    first_step(manifest).update(num_tokens=2, rows_per_sentence=1)


def two_states_of_one_output(manifest: Json) -> None:
    step = first_step(manifest)
    step["states"].append(step["states"][1] | {"input": "cross_value_0"})
    step["graph"]["inputs"].append("cross_value_0")


def other_states(manifest: Json) -> None:
    """Add a step with wider row states."""
    step = decoder_step(first_step(manifest)["graph"]["path"]) | {"name": "other"}
    step["states"][0]["shape"] = [2, 0, 32]
    manifest["precisions"][0]["steps"].append(step)


def swapped_outputs(manifest: Json) -> None:
    step = first_step(manifest)
    step["outputs"]["candidate_ids"] = "present_key_0"


def controlled(name: str = "tone", default_value: str = "", **value: Any) -> Change:
    """Add a control of one value."""
    values = [{"name": "warm", **value}]
    return set_key("controls", [{"name": name, "values": values, "default_value": default_value}])


def same_values(manifest: Json) -> None:
    manifest["controls"] = [{"name": "tone", "values": [{"name": "warm"}] * 2}]


RULES: dict[str, tuple[Change, str]] = {
    "unknown field": (set_key("nested", {}), 'no field named "nested"'),
    "no version of the manifest": (drop("manifest_version"), "manifest_version 0 is not 2"),
    "a later version": (set_key("manifest_version", 3), "manifest_version 3 is not 2"),
    "a bad name": (set_key("name", "En"), "name has other characters"),
    "a bad version": (set_key("version", "../2"), "version has other characters"),
    "no kind": (drop("kind"), "kind is missing"),
    "an unknown kind": (set_key("kind", "MODEL_KIND_NOTHING"), "MODEL_KIND_NOTHING"),
    "too many controls": (
        set_key("controls", [{"name": f"c{i}", "values": [{"name": "a"}]} for i in range(33)]),
        "controls must have at most 32, not 33",
    ),
    "a control twice": (
        set_key("controls", [{"name": "tone", "values": [{"name": "warm"}]}] * 2),
        "controls has a name twice",
    ),
    "a value twice": (same_values, "controls[0].values has a name twice"),
    "a control of no values": (
        set_key("controls", [{"name": "tone"}]),
        "must have 1 to 256 values",
    ),
    "a control with a bad name": (controlled("Tone\n"), "controls has a name that does not match"),
    "a control with a long name": (
        controlled("t" * 101),
        "controls has a name that does not match",
    ),
    "a value with a bad name": (
        set_key("controls", [{"name": "tone", "values": [{"name": ""}]}]),
        "controls[0].values has a name that does not match",
    ),
    "an unknown default value": (
        controlled(default_value="cold"),
        "controls: the default value of tone is not among its values",
    ),
    "a control beyond the source vocabulary": (
        controlled(source_suffix_ids=[2**32 - 1]),
        "controls: tone: a token id of warm is outside the source vocabulary",
    ),
    "a control beyond the target vocabulary": (
        controlled(forced_target_ids=[2**32 - 1]),
        "controls: tone: a token id of warm is outside the target vocabulary",
    ),
    "a control that ends targets": (
        lambda m: controlled(forced_target_ids=[m["special_tokens"]["eos_id"]])(m),
        "controls: tone: warm forces EOS or a suppressed token",
    ),
    "a control that fills targets": (
        lambda m: controlled(forced_target_ids=[5] * m["limits"]["max_target_tokens"])(m),
        "limits.max_target_tokens has no room beside the tokens that targets begin with",
    ),
    "a field of version 1": (set_key("source_language", "en"), "source_language"),
    "version 1 without sizes": (set_key("manifest_version", 1), "version 1 has no field"),
    "no network": (drop("architecture"), "architecture.source_embeddings is missing"),
    "no decoder": (drop("architecture", "decoder"), "architecture.decoder is missing"),
    "a decoder of no layers": (
        set_part("architecture", "decoder", groups=[]),
        "architecture.decoder must have 1 to 10000 layers",
    ),
    "a group of no layers": (set_layers(num_layers=0), "architecture.decoder must have 1 to"),
    "billions of layers": (set_layers(num_layers=2**32 - 1), "architecture.decoder must have"),
    "layers that run billions of times": (
        set_layers(num_repeats=2**32 - 1),
        "architecture.decoder must have 1 to",
    ),
    "a huge vocabulary": (
        set_part("architecture", "target_embeddings", vocab_size=2**32 - 1),
        "architecture.target_embeddings.vocab_size must be between 1 and",
    ),
    "no end of targets": (
        set_key("target_special_tokens", {"pad_id": 0}),
        "target_special_tokens.eos_id is missing",
    ),
    "no step": (lambda m: m["precisions"][0].pop("steps"), "no step takes sentences of any"),
    "a step twice": (
        lambda m: m["precisions"][0]["steps"].append(first_step(m)),
        "steps must have names, each once",
    ),
    "no step for beams": (set_step(rows_per_sentence=1), "no step takes sentences of any"),
    "two rows a sentence": (set_step(rows_per_sentence=2), "rows_per_sentence must be 0 or 1"),
    "no tokens": (set_step(num_tokens=0), "num_tokens must be between 1 and 16"),
    "many tokens": (set_step(num_tokens=1000), "num_tokens must be between 1 and 16"),
    "a prefill": (set_step(max_prefill_tokens=2), "max_prefill_tokens must be 1"),
    "two tokens, one bias": (two_tokens, "token_biases must have an entry for each"),
    "no tokens to read": (
        lambda m: first_step(m)["inputs"].pop("tokens"),
        "tokens is missing",
    ),
    "no candidates": (
        lambda m: first_step(m)["outputs"].pop("candidate_ids"),
        "candidate_ids is missing",
    ),
    "no number of candidates": (
        lambda m: first_step(m)["inputs"].pop("num_candidates"),
        "num_candidates must be set for steps of one token",
    ),
    "an input that the graph lacks": (set_inputs(tokens="other"), "graph has no input 'other'"),
    "an input without a role": (
        lambda m: first_step(m)["graph"]["inputs"].append("other"),
        "input 'other' of the graph has no role",
    ),
    "an input of two roles": (
        set_inputs(source_lengths="lengths"),
        "input 'lengths' has two roles",
    ),
    "an output that the graph lacks": (
        lambda m: first_step(m)["graph"].pop("outputs"),
        "the graph has no output 'candidate_ids'",
    ),
    "an output of two roles": (swapped_outputs, "output 'present_key_0' has two roles"),
    "a shortlist without its mask": (
        set_inputs(shortlist="shortlist"),
        "shortlist and shortlist_mask belong together",
    ),
    "a shortlist that the encoder does not give": (
        add_shortlist("shortlist"),
        "shortlist_output must be an output of the encoder",
    ),
    "a shortlist that a state begins as": (
        add_shortlist("cross_key_0"),
        "shortlist_output must be an output of the encoder",
    ),
    "penalties without scores": (
        set_inputs(repetition_penalty={"indices": "a", "values": "b", "penalizes_logits": "c"}),
        "repetition_penalty and candidate_scores belong together",
    ),
    "penalties without values": (
        set_inputs(repetition_penalty={"indices": "a", "penalizes_logits": "c"}),
        "repetition_penalty.values is missing",
    ),
    "penalties in a step with a shortlist": (
        set_inputs(
            repetition_penalty={"indices": "a", "values": "b", "penalizes_logits": "c"},
            shortlist="shortlist",
            shortlist_mask="mask",
        ),
        "repetition_penalty is for steps of one token without a shortlist",
    ),
    "log-probabilities of the vocabulary": (
        lambda m: first_step(m)["outputs"].update(log_probabilities="all"),
        "outputs other than candidates are not supported",
    ),
    "a state of no type": (
        set_state(0, data_type="DATA_TYPE_UNSPECIFIED"),
        "data_type must be DATA_TYPE_FLOAT32 or DATA_TYPE_FLOAT16",
    ),
    "a state of nobody": (set_state(0, owner="STATE_OWNER_UNSPECIFIED"), "owner is missing"),
    "a replaced state with positions": (
        set_state(0, update="STATE_UPDATE_REPLACED"),
        "state past_key_0: shape must be [width]",
    ),
    "a huge replaced state": (
        set_state(0, update="STATE_UPDATE_REPLACED", shape=[2**31]),
        "sizes in shape must be between 1 and",
    ),
    "a replaced state that begins with no output of the encoder": (
        set_state(0, update="STATE_UPDATE_REPLACED", shape=[16], encoder_output="vector"),
        "state past_key_0: encoder_output is not an output of the encoder",
    ),
    "replaced states of which one begins with an output of the encoder": (
        lambda m: [
            set_state(0, update="STATE_UPDATE_REPLACED", shape=[16])(m),
            first_step(m)["states"].append(
                {
                    "input": "vector",
                    "outputs": ["next"],
                    "data_type": "DATA_TYPE_FLOAT32",
                    "shape": [16],
                    "owner": "STATE_OWNER_ROW",
                    "update": "STATE_UPDATE_REPLACED",
                    "encoder_output": "cross_key_0",
                }
            ),
        ],
        "either all replaced states must have an encoder_output, or none",
    ),
    "a replaced state that no step writes": (
        set_state(0, update="STATE_UPDATE_REPLACED", shape=[16], outputs=[]),
        "state past_key_0: outputs must have one entry",
    ),
    "a constant state of a row": (
        set_state(0, update="STATE_UPDATE_CONSTANT"),
        "state past_key_0: only STATE_UPDATE_GROWS or STATE_UPDATE_REPLACED is supported",
    ),
    "a replaced state of a source": (
        set_state(1, update="STATE_UPDATE_REPLACED"),
        "state cross_key_0: only STATE_UPDATE_CONSTANT is supported",
    ),
    "a state of a source that grows": (
        set_state(1, update="STATE_UPDATE_GROWS"),
        "state cross_key_0: only STATE_UPDATE_CONSTANT is supported",
    ),
    "a state without positions": (set_state(0, shape=[2, 4, 16]), "shape must be [heads, 0"),
    "a huge state": (set_state(0, shape=[2**31, 0, 16]), "sizes in shape must be between 1 and"),
    "a state that no step writes": (
        set_state(0, outputs=[]),
        "state past_key_0: outputs must have an entry for each of num_tokens",
    ),
    "a state that is written twice": (
        set_state(0, outputs=["present_key_0", "present_key_0"]),
        "state past_key_0: outputs must have an entry for each of num_tokens",
    ),
    "a state that nobody begins": (
        set_state(1, encoder_output="other"),
        "encoder_output is not an output of the encoder",
    ),
    "two states that begin as one": (
        two_states_of_one_output,
        "two states have the same encoder_output",
    ),
    "steps of different states": (
        other_states,
        "all steps must have the same states",
    ),
    "no limits": (drop("limits"), "limits.max_source_tokens must be between 1 and 65536"),
    "no limit of targets": (
        drop("limits", "max_target_tokens"),
        "limits.max_target_tokens must be between 1 and 65536",
    ),
    "a huge limit of sources": (
        set_part("limits", max_source_tokens=65_537),
        "limits.max_source_tokens must be between 1 and 65536",
    ),
    "no end token": (drop("special_tokens", "eos_id"), "special_tokens.eos_id is missing"),
    "a token outside the vocabulary": (
        set_part("special_tokens", eos_id=100),
        "special_tokens.eos_id is outside the vocabulary",
    ),
    "no tokenizer of targets": (drop("target_tokenizer"), "target_tokenizer is missing"),
    "no precision": (drop("precisions"), "precisions must have one or more of fp32, int8, fp16"),
    "a precision without a graph": (
        lambda m: m["precisions"][0].pop("scorer"),
        "the int8 precision has no graph scorer",
    ),
    "an aligner without heads": (
        lambda m: m["precisions"][0].update(aligner={"path": "scorer.int8.onnx"}),
        "the int8 precision: aligner and alignment need each other",
    ),
    "heads without aligners": (
        lambda m: m.update(alignment={"heads": [{}]}),
        "the int8 precision: aligner and alignment need each other",
    ),
    "no heads that align": (with_aligners(), "alignment.heads must have one or more"),
    "glossaries without an aligner": (
        lambda m: m.update(glossaries=["animals"]),
        "alignment is missing, but there are glossaries",
    ),
    "a glossary without a file": (
        with_an_unlisted_glossary,
        "'glossaries/animals.tsv' is used but not among files",
    ),
    "a name of a glossary that leaves its folder": (
        lambda m: m.update(glossaries=["../animals"]),
        "glossaries has a name that breaks the rules for names",
    ),
    "a glossary twice": (
        lambda m: m.update(glossaries=["animals", "animals"]),
        "glossaries must have at most 100 names, and none twice",
    ),
    "too many glossaries": (
        lambda m: m.update(glossaries=[f"g{number}" for number in range(101)]),
        "glossaries must have at most 100 names, and none twice",
    ),
    "a head twice that aligns": (with_aligners({}, {}), "alignment.heads must have one or more"),
    "a head that the decoder lacks": (
        with_aligners({"layer": 1000}),
        "alignment.heads has a head that the decoder lacks",
    ),
    "an attention graph that lacks a layer": (
        lambda m: m["precisions"][0].update(
            attention={
                "path": "scorer.int8.onnx",
                "inputs": ["source", "target_in"],
                "outputs": ["cross_attention_0"],
            }
        ),
        "the int8 precision: attention has other inputs or outputs than the layers of the "
        "architecture have",
    ),
    "a precision twice": (
        lambda m: m["precisions"].append(m["precisions"][0]),
        "precisions must have one or more of",
    ),
    "an unknown precision": (
        lambda m: m["precisions"][0].update(name="int4"),
        "precisions must have one or more of",
    ),
    "a file used but not listed": (lambda m: m["files"].pop(), "is used but not among files"),
    "a file listed twice": (lambda m: m["files"].append(m["files"][0]), "is listed twice"),
    "the manifest among its files": (set_path("manifest.json"), "is the manifest itself"),
    "its signature among its files": (set_path("manifest.json.sig"), "or its signature"),
    "an absolute path": (set_path("/etc/passwd"), "is not a plain path inside the bundle"),
    "a path to the parent": (set_path("../2/tokenizer.json"), "is not a plain path"),
    "a path through the parent": (set_path("sub/../../tokenizer.json"), "is not a plain path"),
    "a path with a dot": (set_path("./tokenizer.json"), "is not a plain path"),
    "an empty path": (set_path(""), "is not a plain path"),
    "an empty part of a path": (set_path("sub//tokenizer.json"), "is not a plain path"),
    "a path with a backslash": (set_path("..\\tokenizer.json"), "is not a plain path"),
    "a path with NUL": (set_path("tokenizer.json\u0000"), "is not a plain path"),
    "a path with a newline": (set_path("tokenizer\n.json"), "is not a plain path"),
    "a hash in capitals": (set_file(sha256="A" * 64), "is not 64 lower-case hexadecimal"),
    "a short hash": (set_file(sha256="ab"), "is not 64 lower-case hexadecimal"),
    "a negative size": (set_file(size_bytes=-1), "size_bytes"),
}


@pytest.mark.parametrize(("change", "problem"), RULES.values(), ids=RULES.keys())
def test_a_manifest_that_breaks_a_rule_is_found(change: Change, problem: str):
    assert problem in problem_of(change)


def test_the_manifest_that_these_tests_change_breaks_no_rule():
    assert problem_of(lambda _: None) == "none"
