"""A sparsely gated mixture of feed-forward networks (Shazeer et al., 2017).

"Outrageously Large Neural Networks: The Sparsely-Gated Mixture-of-Experts Layer", sections 2.1 and
4, appendix A.
"""

import torch
import torch.nn.functional as F
from attendant.v1 import architecture_pb2
from torch import Tensor, nn

from attendant_export.models.feed_forward import FeedForward
from attendant_export.models.unsupported import unsupported

MAX_EXPERTS = 256
BALANCE_WEIGHT = 0.01
"""Weight of the losses that balance the experts, as in appendix C of the paper."""
_EPSILON = 1e-9


class MixtureOfExperts(nn.Module):
    """The experts of one layer. `architecture.proto` has the equation.

    While training, noise is added to the values by which a token chooses its experts (section 2.1),
    and `balance_loss` says how unequally the experts are used.
    """

    def __init__(self, part: architecture_pb2.MixtureOfExperts, d_model: int) -> None:
        super().__init__()
        if not 2 <= part.num_experts <= MAX_EXPERTS:
            raise unsupported(part, "num_experts", f"is not between 2 and {MAX_EXPERTS}")
        if not 1 <= part.num_selected < part.num_experts:
            problem = f"is not between 1 and {part.num_experts - 1}"
            raise unsupported(part, "num_selected", problem)
        self._num_selected = part.num_selected
        self.gate = nn.Linear(d_model, part.num_experts, bias=False)
        self.noise = nn.Linear(d_model, part.num_experts, bias=False)
        self.experts = nn.ModuleList(
            FeedForward(part.expert, d_model) for _ in range(part.num_experts)
        )
        nn.init.normal_(self.gate.weight, std=0.1 * d_model**-0.5)
        nn.init.zeros_(self.noise.weight)
        self.balance_loss: Tensor | None = None
        """The balance losses of the last training pass, weighted; None without one."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., d_model) to (..., d_model)."""
        rows = x.flatten(0, -2)
        with torch.autocast(x.device.type, enabled=False):
            gates = self._gates(rows.float())  # (rows, experts)
        output = torch.zeros_like(rows)
        for number, expert in enumerate(self.experts):
            chosen = gates[:, number].nonzero()[:, 0]
            found = expert(rows[chosen]) * gates[chosen, number, None].to(x.dtype)
            output = output.index_add(0, chosen, found.to(output.dtype))
        return output.view_as(x)

    def _gates(self, rows: Tensor) -> Tensor:
        """The factor of each expert's output: (rows, experts), 0 for those not selected."""
        clean, is_training = self.gate(rows), self.training
        deviations = F.softplus(self.noise(rows)) if is_training else None
        values = clean
        if deviations is not None:
            values = clean + torch.randn_like(clean) * deviations
        best, chosen = values.topk(self._num_selected, dim=-1)
        gates = torch.zeros_like(values).scatter(1, chosen, best.softmax(-1))
        self.balance_loss = None
        if deviations is not None:
            load = self._load(clean, values, deviations)
            self.balance_loss = BALANCE_WEIGHT * (_variation(gates.sum(0)) + _variation(load))
        return gates

    def _load(self, clean: Tensor, values: Tensor, deviations: Tensor) -> Tensor:
        """A smooth estimate of the number of rows that select each expert (appendix A)."""
        best = values.topk(self._num_selected + 1, dim=-1).values
        last_in, first_out = best[:, -2:-1], best[:, -1:]
        # The value to exceed leaves out the expert's own.
        limit = torch.where(values >= last_in, first_out, last_in)
        chance: Tensor = torch.special.ndtr((clean - limit) / (deviations + _EPSILON))
        return chance.sum(0)


def _variation(values: Tensor) -> Tensor:
    """The squared coefficient of variation."""
    return values.var(unbiased=False) / (values.mean().square() + _EPSILON)


def balance_loss(model: nn.Module) -> Tensor | None:
    """The sum of the balance losses of the last training pass; None without experts."""
    losses = [
        module.balance_loss
        for module in model.modules()
        if isinstance(module, MixtureOfExperts) and module.balance_loss is not None
    ]
    return torch.stack(losses).sum() if losses else None
