"""Generates with PyTorch on request: a text from its first token until the context is full, greedily, with a cache of
keys and values. Speaks the protocol of `turns.py`.

It first checks the cache, whose logits must be the same as the forward pass's.
"""

import argparse

import torch
from torch.nn import functional as F

import peer
from configurations import Sizes
from peer_torch import GPT, Block

# The largest difference of logits over the largest logit. Rounding makes 1e-6.
TOLERANCE = 1e-4


class Generator:
    def __init__(self, sizes: Sizes) -> None:
        self.model, self.sizes = GPT(sizes, dropout=0.0), sizes
        # Keys and values of each layer
        shape = 2, 1, sizes.H, sizes.T, sizes.C // sizes.H
        self.caches = [torch.empty(shape) for _ in range(sizes.L)]

    def logits(self, token: torch.Tensor, position: int) -> torch.Tensor:
        """`[1, V]` after `token [1]`; the cache holds what came before."""
        x = self.model.wte(token) + self.model.wpe.weight[position]
        for block, cache in zip(self.model.h, self.caches, strict=True):
            x = x + self.attend(block, block.ln_1(x), cache, position)
            x = x + block.mlp(block.ln_2(x))
        return F.linear(self.model.ln_f(x), self.model.wte.weight)

    def attend(self, block: Block, x: torch.Tensor, cache: torch.Tensor, position: int) -> torch.Tensor:
        q, *fresh = block.attn.c_attn(x).view(3, 1, self.sizes.H, 1, -1)
        for kept, new in zip(cache, fresh, strict=True):
            kept[:, :, position] = new[:, :, 0]
        k, v = cache[:, :, :, : position + 1]
        return block.attn.c_proj(F.scaled_dot_product_attention(q, k, v).view(1, -1))

    def fill(self) -> None:
        token = torch.zeros(1, dtype=torch.long)
        for position in range(self.sizes.T):
            token = self.logits(token, position).argmax(1)

    def check(self) -> None:
        tokens = torch.randint(self.sizes.V, (self.sizes.T,))
        x = self.model.wte(tokens[None]) + self.model.wpe.weight
        for block in self.model.h:
            x = block(x)
        wanted = F.linear(self.model.ln_f(x), self.model.wte.weight)[0]
        found = torch.cat([self.logits(token[None], position) for position, token in enumerate(tokens)])
        difference = float((found - wanted).abs().max() / wanted.abs().max())
        assert difference < TOLERANCE, f"with the cache, logits differ by {difference:.1e}"


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", required=True, metavar="V,T,L,H,C")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(1)
    peer.ready()
    generator = Generator(Sizes(*map(int, options.sizes.split(",")), B=1))
    generator.check()
    peer.serve(generator.fill)


if __name__ == "__main__":
    main()
