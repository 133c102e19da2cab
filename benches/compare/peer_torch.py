"""Training steps of a GPT-2 or a Llama in PyTorch on request, eagerly or through torch.compile.

The GPT-2 is nanoGPT's: exact GELU, tied head, biases, scaled_dot_product_attention with dropout. The Llama has a tied head,
and the products of queries, keys and values, and of gate and up, in one each.
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
        V, T, L, H, C, *_ = sizes
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


class LlamaAttention(nn.Module):
    def __init__(self, H: int, K: int, C: int) -> None:
        super().__init__()
        self.parts = (C, K * (C // H), K * (C // H))
        self.D = C // H
        self.qkv, self.o_proj = nn.Linear(C, sum(self.parts), bias=False), nn.Linear(C, C, bias=False)

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        B, T, C = x.shape
        q, k, v = (
            part.view(B, T, -1, self.D).transpose(1, 2) for part in self.qkv(x).split(self.parts, dim=2)
        )
        q, k = rotated(q, cos, sin), rotated(k, cos, sin)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return self.o_proj(y.transpose(1, 2).contiguous().view(B, T, C))


def rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


class LlamaBlock(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        C = sizes.C
        self.input_layernorm, self.post_attention_layernorm = nn.RMSNorm(C, 1e-5), nn.RMSNorm(C, 1e-5)
        self.attention = LlamaAttention(sizes.H, sizes.K, C)
        self.gate_up, self.down_proj = nn.Linear(C, 2 * sizes.F, False), nn.Linear(sizes.F, C, False)

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.input_layernorm(x), cos, sin)
        gate, up = self.gate_up(self.post_attention_layernorm(x)).chunk(2, dim=2)
        return x + self.down_proj(F.silu(gate) * up)


class Llama(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.embed_tokens = nn.Embedding(sizes.V, sizes.C)
        self.layers = nn.ModuleList(LlamaBlock(sizes) for _ in range(sizes.L))
        self.norm = nn.RMSNorm(sizes.C, 1e-5)
        D = sizes.C // sizes.H
        angles = torch.outer(
            torch.arange(sizes.T).float(), 1.0 / 10000.0 ** (torch.arange(0, D, 2).float() / D)
        )
        self.cos, self.sin = angles.cos(), angles.sin()
        for parameter in self.parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, 0.0, 0.02)

    def forward(self, tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        x = self.embed_tokens(tokens)
        cos, sin = self.cos[: tokens.shape[1]], self.sin[: tokens.shape[1]]
        for block in self.layers:
            x = block(x, cos, sin)
        logits = F.linear(self.norm(x), self.embed_tokens.weight)
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.view(-1))

    def names(self) -> dict[str, list[str]]:
        """For each parameter, Hugging Face's names of what it holds, row after row."""
        names = {"embed_tokens.weight": ["model.embed_tokens.weight"], "norm.weight": ["model.norm.weight"]}
        for i in range(self.sizes.L):
            here, there = f"layers.{i}.", f"model.layers.{i}."
            heads = [f"{there}self_attn.{part}_proj.weight" for part in "qkv"]
            names |= {
                f"{here}attention.qkv.weight": heads,
                f"{here}attention.o_proj.weight": [f"{there}self_attn.o_proj.weight"],
                f"{here}gate_up.weight": [f"{there}mlp.{part}_proj.weight" for part in ("gate", "up")],
                f"{here}down_proj.weight": [f"{there}mlp.down_proj.weight"],
            }
            for norm in ("input_layernorm.weight", "post_attention_layernorm.weight"):
                names[here + norm] = [there + norm]
        return names


class Torch:
    def __init__(self, sizes: Sizes, dropout: float, compiled: bool) -> None:
        torch.manual_seed(1)
        self.model: GPT | Llama = Llama(sizes) if sizes.K else GPT(sizes, dropout)
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
        if isinstance(self.model, Llama):
            names = self.model.names()
            self.sections = {here: [len(parameters[name]) for name in there] for here, there in names.items()}
            state = {
                here: torch.cat([torch.tensor(parameters[name]) for name in there])
                for here, there in names.items()
            }
            self.model.load_state_dict(state)
            return
        self.model.load_state_dict({name: oriented(name, torch.tensor(x)) for name, x in parameters.items()})

    def gradients(self, tokens: np.ndarray, targets: np.ndarray) -> Arrays:
        self.backward(torch.tensor(tokens).long(), torch.tensor(targets).long())
        if isinstance(self.model, Llama):
            names, found = self.model.names(), dict(self.model.named_parameters())
            parts = {here: found[here].grad.split(self.sections[here]) for here in names}
            return {
                name: part.numpy()
                for here, there in names.items()
                for name, part in zip(there, parts[here], strict=True)
            }
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
