"""The simpler simple recurrent unit (SSRU), a token mixer whose state each token replaces.

"From Research to Production and Back: Ludicrously Fast Neural Machine Translation" (Kim et al.,
2019). Marian's students have it in their decoders.
"""

import torch
from torch import Tensor, nn


class Ssru(nn.Module):
    """The recurrence c_t = f_t * c_(t-1) + (1 - f_t) * W x_t, where f_t = sigmoid(W_f x_t + b_f).

    Its output is relu(c_t). The state before the first token is 0.
    """

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.forget = nn.Linear(d_model, d_model)
        self.candidate = nn.Linear(d_model, d_model, bias=False)
        for linear in (self.forget, self.candidate):
            nn.init.xavier_uniform_(linear.weight)
        nn.init.zeros_(self.forget.bias)

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mix ``x`` (batch, length, d_model), which follows the tokens of ``state``.

        Returns the output, shaped like ``x``, and the state (batch, d_model) after the last token.
        """
        forget = torch.sigmoid(self.forget(x).float())
        new = (1 - forget) * self.candidate(x)  # (batch, length, d_model)
        state = torch.zeros_like(new[:, 0]) if state is None else state
        states = []
        for position in range(x.shape[1]):
            state = forget[:, position] * state + new[:, position]
            states.append(state)
        return torch.relu(torch.stack(states, dim=1)).to(x.dtype), state
