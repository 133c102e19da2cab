"""Training steps of a GPT-2 in PyTorch on request, eagerly or through torch.compile.

The model is nanoGPT's: exact GELU, tied head, biases, scaled_dot_product_attention with dropout.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import peer
from configurations import Sizes
from peer import Arrays


class Attention(nn.Module):
    def __init__(self, H: int, C: int, dropout: float) -> None:
        super().__init__()
        self.H, self.dropout = H, dropout
        self.c_attn, self.c_proj = nn.Linear(C, 3 * C), nn.Linear(C, C)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        B, T, C = x.shape
        q, k, v = (
            part.view(B, T, self.H, C // self.H).transpose(1, 2) for part in self.c_attn(x).split(C, dim=2)
        )
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout, is_causal=True)
        return self.c_proj(y.transpose(1, 2).contiguous().view(B, T, C))


class MLP(nn.Module):
    def __init__(self, C: int) -> None:
        super().__init__()
        self.c_fc, self.c_proj = nn.Linear(C, 4 * C), nn.Linear(4 * C, C)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c_proj(F.gelu(self.c_fc(x)))


class Block(nn.Module):
    def __init__(self, H: int, C: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.ln_1, self.attn = nn.LayerNorm(C), Attention(H, C, dropout)
        self.ln_2, self.mlp = nn.LayerNorm(C), MLP(C)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + F.dropout(self.attn(self.ln_1(x)), self.dropout)
        return x + F.dropout(self.mlp(self.ln_2(x)), self.dropout)


class GPT(nn.Module):
    """Parameters have Hugging Face's names, but the blocks' matrices are `[out, in]`."""

    def __init__(self, sizes: Sizes, dropout: float) -> None:
        super().__init__()
        V, T, L, H, C, _ = sizes
        self.dropout = dropout
        self.wte, self.wpe = nn.Embedding(V, C), nn.Embedding(T, C)
        self.h = nn.ModuleList(Block(H, C, dropout) for _ in range(L))
        self.ln_f = nn.LayerNorm(C)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, 0.0, 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        positions = torch.arange(tokens.shape[1])
        x = F.dropout(self.wte(tokens) + self.wpe(positions), self.dropout)
        for block in self.h:
            x = block(x)
        logits = F.linear(self.ln_f(x), self.wte.weight)
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.view(-1))


class Torch:
    def __init__(self, sizes: Sizes, dropout: float, compiled: bool) -> None:
        torch.manual_seed(1)
        self.model = GPT(sizes, dropout)
        self.forward = torch.compile(self.model) if compiled else self.model
        self.parameters = list(self.model.parameters())
        groups = [
            {"params": [p for p in self.parameters if p.dim() == 2], "weight_decay": peer.WEIGHT_DECAY},
            {"params": [p for p in self.parameters if p.dim() == 1], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(
            groups, lr=peer.LEARNING_RATE, betas=peer.BETAS, eps=peer.EPSILON, fused=True
        )
        self.text = torch.randint(sizes.V, (peer.TEXT,))
        self.windows, self.window = sizes.B, torch.arange(sizes.T + 1)

    def step(self) -> None:
        first = torch.randint(peer.TEXT - len(self.window) + 1, (self.windows, 1))
        windows = self.text[first + self.window]
        self.train(windows[:, :-1].contiguous(), windows[:, 1:].contiguous())

    def train(self, tokens: torch.Tensor, targets: torch.Tensor) -> float:
        loss = self.backward(tokens, targets)
        nn.utils.clip_grad_norm_(self.parameters, peer.CLIP)
        self.optimizer.step()
        return loss.item()

    def backward(self, tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.forward(tokens, targets)
        loss.backward()
        return loss

    def load(self, parameters: Arrays) -> None:
        self.model.load_state_dict({name: oriented(name, torch.tensor(x)) for name, x in parameters.items()})

    def gradients(self, tokens: np.ndarray, targets: np.ndarray) -> Arrays:
        self.backward(torch.tensor(tokens).long(), torch.tensor(targets).long())
        return {
            name: oriented(name, p.grad).numpy()
            for name, p in self.model.named_parameters()
            if p.grad is not None
        }

    def update(self, tokens: np.ndarray, targets: np.ndarray) -> float:
        return self.train(torch.tensor(tokens).long(), torch.tensor(targets).long())


def oriented(name: str, x: torch.Tensor) -> torch.Tensor:
    """Between `[in, out]` and `[out, in]`, where PyTorch's order differs."""
    return x.T if name.startswith("h.") and x.dim() == 2 else x


def main() -> None:
    parser = peer.arguments(__doc__)
    parser.add_argument("--compile", action="store_true", help="through torch.compile")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    peer.main(options, lambda sizes: Torch(sizes, options.dropout, options.compile))


if __name__ == "__main__":
    main()
