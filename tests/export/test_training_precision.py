import pytest
import torch
import torch.nn.functional as F
from attendant.v1.architecture_pb2 import Attention
from attendant_export.models.attention import MultiHeadAttention
from attendant_export.train import device as devices
from attendant_export.train import vocabulary_loss
from attendant_export.train.device import pick_precision
from attendant_export.train.distributed import ProcessGroup
from attendant_export.train.loop import Task, Trainer
from attendant_export.train.schedule import TrainingOptions
from attendant_export.train.vocabulary_loss import summed_cross_entropy
from torch import nn

CPU = torch.device("cpu")
VOCAB_SIZE = 50


def gradients(loss, *tensors):
    return torch.autograd.grad(loss, tensors, retain_graph=True)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("num_positions", [1, 4, 9])
def test_a_loss_over_four_positions_at_a_time_is_that_of_the_whole(
    num_positions, label_smoothing, monkeypatch
):
    monkeypatch.setitem(vocabulary_loss.CHUNK_SCORES, "cpu", 4 * VOCAB_SIZE)
    torch.manual_seed(num_positions)
    hidden = torch.randn(num_positions, 3, requires_grad=True)
    weight = torch.randn(VOCAB_SIZE, 3, requires_grad=True)
    targets = torch.randint(VOCAB_SIZE, (num_positions,))

    loss = summed_cross_entropy(lambda h: h @ weight.T, hidden, targets, label_smoothing)

    how = {"label_smoothing": label_smoothing, "reduction": "sum"}
    whole = F.cross_entropy(hidden @ weight.T, targets, **how)
    torch.testing.assert_close(loss, whole, rtol=1e-5, atol=0)
    for found, wanted in zip(
        gradients(2 * loss, hidden, weight), gradients(2 * whole, hidden, weight), strict=True
    ):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_no_position_has_no_loss():
    weight = torch.randn(7, 3, requires_grad=True)

    loss = summed_cross_entropy(
        lambda h: h @ weight.T, torch.zeros(0, 3), torch.zeros(0, dtype=torch.long)
    )

    assert loss == 0
    assert not gradients(loss, weight)[0].any()


@pytest.mark.parametrize(
    ("name", "speed", "dtype"),
    [
        ("fp32", 9, torch.float32),
        ("bf16", 1, torch.bfloat16),
        ("auto", 9, torch.bfloat16),
        ("auto", 1, torch.float32),
    ],
)
def test_bfloat16_is_used_where_it_is_asked_for_or_much_faster(name, speed, dtype, monkeypatch):
    monkeypatch.setattr(devices, "_bfloat16_speed", lambda: speed)

    assert pick_precision(name, CPU) == dtype


@pytest.mark.parametrize(("is_fast", "dtype"), [(1.0, torch.bfloat16), (0.0, torch.float32)])
def test_every_process_takes_the_precision_that_the_first_one_has_measured(
    is_fast, dtype, monkeypatch
):
    class SecondOfTwo(ProcessGroup):
        def gather(self, values):
            return [[is_fast], list(values)]

    monkeypatch.setattr(devices, "_bfloat16_speed", lambda: pytest.fail("measured again"))

    assert pick_precision("auto", CPU, SecondOfTwo(rank=1, size=2)) == dtype


def test_an_unknown_precision_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="precision 'int8' is not auto, fp32 or bf16"):
        pick_precision("int8", CPU)


def test_attention_on_a_cpu_is_computed_in_float32_while_training_in_bfloat16():
    layer = MultiHeadAttention(Attention(num_heads=2, head_dim=8), 16)
    x = torch.randn(1, 5, 16)

    with torch.autocast("cpu", torch.bfloat16):
        output, (keys, values) = layer(x)

    assert keys.dtype == output.dtype == torch.bfloat16
    torch.testing.assert_close(output.float(), layer(x)[0], rtol=0.05, atol=0.02)


def test_a_training_in_bfloat16_learns_and_keeps_its_weights_in_float32(tmp_path):
    torch.manual_seed(1)
    model, seen = nn.Linear(4, 4), []

    def loss(batch):
        output = model(batch)
        seen.append(output.dtype)
        return (output.float() - batch).square().mean()

    def minus_loss():
        return {"minus_loss": -(model(torch.eye(4)) - torch.eye(4)).square().mean().item()}

    task = Task(lambda _: iter(torch.randn(50, 16, 4)), 50, loss, minus_loss)
    before = minus_loss()["minus_loss"]
    options = TrainingOptions(max_epochs=1, learning_rate=0.05, warmup_steps=1)

    progress = Trainer(model, task, options, tmp_path, False, dtype=torch.bfloat16).train()

    assert set(seen) == {torch.bfloat16}
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert progress.best > before / 10
