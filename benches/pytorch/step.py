"""Times training steps of a GPT-2 in PyTorch: forward, loss, backward, clipping by global norm 1, fused AdamW.

The model is nanoGPT's: exact GELU, tied head, biases, scaled_dot_product_attention with dropout. Prints one line
of JSON, with the fields of the Rust binary `step`.
"""

import argparse
import json
import statistics
import time

import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    def __init__(self, heads: int, width: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.ln_1 = nn.LayerNorm(width)
        self.c_attn = nn.Linear(width, 3 * width)
        self.attention_projection = nn.Linear(width, width)
        self.ln_2 = nn.LayerNorm(width)
        self.c_fc = nn.Linear(width, 4 * width)
        self.mlp_projection = nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        B, T, C = x.shape
        qkv = self.c_attn(self.ln_1(x)).split(C, dim=2)
        q, k, v = (part.view(B, T, self.heads, C // self.heads).transpose(1, 2) for part in qkv)
        p = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=p, is_causal=True)
        y = y.transpose(1, 2).contiguous().view(B, T, C)
        x = x + F.dropout(self.attention_projection(y), self.dropout, self.training)
        y = self.mlp_projection(F.gelu(self.c_fc(self.ln_2(x))))
        return x + F.dropout(y, self.dropout, self.training)


class GPT(nn.Module):
    def __init__(self, V: int, T: int, L: int, H: int, C: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.wte, self.wpe = nn.Embedding(V, C), nn.Embedding(T, C)
        self.blocks = nn.ModuleList(Block(H, C, dropout) for _ in range(L))
        self.ln_f = nn.LayerNorm(C)
        self.head = nn.Linear(C, V, bias=False)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, 0.0, 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
        self.head.weight = self.wte.weight

    def forward(self, tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        positions = torch.arange(tokens.shape[1])
        x = F.dropout(self.wte(tokens) + self.wpe(positions), self.dropout, self.training)
        for block in self.blocks:
            x = block(x)
        logits = self.head(self.ln_f(x))
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.view(-1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", required=True, metavar="V,T,L,H,C,B")
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--compile", action="store_true", help="through torch.compile")
    arguments = parser.parse_args()
    V, T, L, H, C, B = map(int, arguments.sizes.split(","))

    torch.set_num_threads(arguments.threads)
    torch.manual_seed(1)
    model = GPT(V, T, L, H, C, arguments.dropout)
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": 0.1},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99), fused=True)
    forward = torch.compile(model) if arguments.compile else model
    text = torch.randint(V, (100_000,))

    times = []
    for step in range(arguments.warmup + arguments.steps):
        start = time.perf_counter()
        first = torch.randint(len(text) - T, (B,))
        tokens = torch.stack([text[i : i + T] for i in first])
        targets = torch.stack([text[i + 1 : i + 1 + T] for i in first])
        optimizer.zero_grad(set_to_none=True)
        loss = forward(tokens, targets)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        value = loss.item()
        if step >= arguments.warmup:
            times.append((time.perf_counter() - start) * 1e3)

    median = statistics.median_low(times)
    result = {
        "library": "torch.compile" if arguments.compile else "PyTorch",
        "sizes": arguments.sizes,
        "parameters": sum(p.numel() for p in parameters),
        "dropout": arguments.dropout,
        "threads": arguments.threads,
        "steps": arguments.steps,
        "median_ms": round(median, 3),
        "fastest_ms": round(min(times), 3),
        "tokens_per_second": round(B * T / median * 1e3),
        "loss": round(value, 4),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
