"""Forms of checkpoints that are recognized in order to be refused by their names."""

import pytest

from tests.support.checkpoints import change_json, write_checkpoint, write_json
from tests.support.marian_checkpoints import write_marian


@pytest.mark.parametrize("method", ["bitsandbytes", "gptq"])
def test_quantized_weights_are_refused_by_their_method(method, tmp_path, refusal):
    for source in (
        write_checkpoint(tmp_path / "encoder", "bert"),
        write_marian(tmp_path / "translator"),
    ):
        change_json(source / "config.json", quantization_config={"quant_method": method})
        assert f"quantization_config.quant_method is '{method}', which is not" in refusal(source)


def test_an_adapter_without_its_model_is_refused(tmp_path, refusal):
    source = write_checkpoint(tmp_path / "source", "bert")
    (source / "config.json").unlink()
    write_json(source / "adapter_config.json", {"peft_type": "LORA"})
    assert "has adapter_config.json and no config.json: adapters are not" in refusal(source)


def test_a_network_in_code_of_the_checkpoint_is_refused(tmp_path, refusal):
    source = write_checkpoint(tmp_path / "source", "bert")
    path = source / "config.json"
    change_json(path, auto_map={"AutoConfig": "own.Config", "AutoModel": "own.Model"})
    message = refusal(source)
    assert "config.json: auto_map.AutoModel is 'own.Model': networks in code" in message
    assert "if it is the network of model_type 'bert', remove auto_map" in message
