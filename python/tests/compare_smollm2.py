"""Compares SmolLM2-135M-Instruct here with Transformers, which reads the same GGUF file: scripts/test/python/smollm2.sh.

64 greedy tokens must be equal, and the loss on 512 tokens within 1e-5.
"""

import sys
from pathlib import Path

import gguf
import numpy as np
import torch
import transformers

import jostle

PROMPT = "The capital of France is"
SITES = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
OUTSIDE = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}


def own_name(name: str) -> str:
    """A tensor's name here."""
    if name in OUTSIDE:
        return OUTSIDE[name]
    _, layer, site, _ = name.split(".")
    return f"model.layers.{layer}.{SITES[site]}.weight"


def in_halves(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of queries or keys whose pairs lie beside each other, with the pairs half a head apart."""
    rows, columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def read(path: Path, context: int) -> jostle.Model:
    reader = gguf.GGUFReader(path)

    def value(key: str):
        return reader.get_field(f"llama.{key}").contents()

    config = jostle.Config.llama(
        vocab=value("vocab_size"),
        context=context,
        layers=value("block_count"),
        heads=value("attention.head_count"),
        kv_heads=value("attention.head_count_kv"),
        width=value("embedding_length"),
        hidden=value("feed_forward_length"),
        rope_theta=value("rope.freq_base"),
        norm_epsilon=value("attention.layer_norm_rms_epsilon"),
    )
    model = jostle.Model(config)
    for tensor in reader.tensors:
        numbers = gguf.dequantize(tensor.data, tensor.tensor_type)
        if ".attn_q." in tensor.name or ".attn_k." in tensor.name:
            heads = config.heads if ".attn_q." in tensor.name else config.kv_heads
            numbers = in_halves(numbers, heads)
        model.parameters[own_name(tensor.name)][...] = numbers
    return model


def main() -> None:
    path, text = Path(sys.argv[1]), Path(sys.argv[2]).read_text(encoding="utf-8")
    tokenizer = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32
    ).eval()
    # Both continue after the end of a text.
    theirs.generation_config.eos_token_id = None
    ours = read(path, context=576)

    prompt = np.array(tokenizer(PROMPT)["input_ids"])
    wanted = theirs.generate(torch.tensor(prompt[None]), max_new_tokens=64, do_sample=False)[0, len(prompt) :]
    found = ours.generate(prompt, 64, temperature=0)
    print(tokenizer.decode(found))
    assert np.array_equal(found, wanted.numpy()), f"{found} differs from {wanted}"

    tokens = np.array(tokenizer(text)["input_ids"][:513])
    labels = torch.tensor(tokens[None])
    with torch.no_grad():
        wanted_loss = theirs(labels, labels=labels).loss.item()
    loss = ours.loss(tokens[None, :-1], tokens[None, 1:])
    print(f"loss {loss:.6f}, Transformers {wanted_loss:.6f}")
    assert abs(loss - wanted_loss) <= 1e-5 * wanted_loss


if __name__ == "__main__":
    main()
