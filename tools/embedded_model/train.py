"""Trains the small model that ships inside the package, from nothing but `corpus.py`.

    python tools/embedded_model/train.py [--steps 3600] [--out src/tapeout/data/models/fable]

Needs torch, tokenizers and safetensors. Writes a folder in Hugging Face format: a Llama of 0.8 million parameters with
tied embeddings, float16, and a byte-level BPE tokenizer of 512 tokens. Prints the seeds, the loss as it falls, the bits
per byte on stories it has not seen, and a sample; all but the running time is the same on every run of one machine.
"""

import argparse
import json
import math
import os
import shutil
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from corpus import story
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor, nn

BEGIN, END = "<|begin|>", "<|end|>"
SEED = 2024
HELD_OUT_SEED = 1_000_000_000
"""Training stories count up from 0, held-out stories from here."""

PACKED_EVERY = 6
"""One step in so many reads whole stories packed into sequences that fill all positions; in the others each row is one
story. Attention then sees no names but those of the story, and learns much sooner to repeat them."""
PACKED_ROWS = 4
NO_TARGET = -100

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 512,
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 32,
    "hidden_act": "silu",
    "max_position_embeddings": 512,
    "rope_theta": 10000.0,
    "rms_norm_eps": 1e-05,
    "tie_word_embeddings": True,
    "attention_bias": False,
    "mlp_bias": False,
    "initializer_range": 0.02,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "torch_dtype": "float16",
}


class Norm(nn.Module):
    """RMSNorm over the last axis."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(CONFIG["hidden_size"]))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, CONFIG["rms_norm_eps"])


def rope_tables(length: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine, each [length, head_dim], for the convention that rotates halves."""
    half = torch.arange(0, CONFIG["head_dim"], 2, dtype=torch.float32) / CONFIG["head_dim"]
    angle = torch.outer(torch.arange(length, dtype=torch.float32), CONFIG["rope_theta"] ** -half)
    angle = torch.cat([angle, angle], dim=-1)
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of x: [batch, heads, tokens, head_dim]."""
    low, high = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-high, low], dim=-1) * sin


def linear(inputs: int, outputs: int) -> nn.Linear:
    """A projection without bias."""
    return nn.Linear(inputs, outputs, bias=False)


class Attention(nn.Module):
    """Grouped-query causal attention."""

    def __init__(self) -> None:
        super().__init__()
        hidden, dim = CONFIG["hidden_size"], CONFIG["head_dim"]
        heads, kv_heads = CONFIG["num_attention_heads"], CONFIG["num_key_value_heads"]
        self.q_proj, self.o_proj = linear(hidden, heads * dim), linear(heads * dim, hidden)
        self.k_proj, self.v_proj = linear(hidden, kv_heads * dim), linear(hidden, kv_heads * dim)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        q, k, v = (
            project(x).unflatten(-1, (-1, CONFIG["head_dim"])).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        group = q.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o_proj(out.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Gated feed-forward."""

    def __init__(self) -> None:
        super().__init__()
        hidden, inner = CONFIG["hidden_size"], CONFIG["intermediate_size"]
        self.gate_proj, self.up_proj = linear(hidden, inner), linear(hidden, inner)
        self.down_proj = linear(inner, hidden)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    """Attention and feed-forward, each behind a norm and added to the stream."""

    def __init__(self) -> None:
        super().__init__()
        self.input_layernorm, self.self_attn = Norm(), Attention()
        self.post_attention_layernorm, self.mlp = Norm(), Mlp()

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


def first_std(name: str, weight: Tensor) -> float:
    """Spread of a matrix before training: wide enough that attention is selective at once, narrow into the stream."""
    if name.startswith("embed_tokens"):
        return 0.1
    return 0.02 if name.endswith(("o_proj.weight", "down_proj.weight")) else weight.shape[1] ** -0.5


class Llama(nn.Module):
    """The model; parameter names are those of Hugging Face's `LlamaModel`."""

    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(CONFIG["vocab_size"], CONFIG["hidden_size"])
        self.layers = nn.ModuleList(Layer() for _ in range(CONFIG["num_hidden_layers"]))
        self.norm = Norm()
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                nn.init.normal_(weight, std=first_std(name, weight))
        cos, sin = rope_tables(CONFIG["max_position_embeddings"])
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits [batch, tokens, vocabulary] of ids [batch, tokens]."""
        x, length = self.embed_tokens(ids), ids.shape[1]
        for layer in self.layers:
            x = layer(x, self.cos[:length], self.sin[:length])
        return F.linear(self.norm(x), self.embed_tokens.weight)


def train_tokenizer(stories: list[str]) -> Tokenizer:
    """Byte-level BPE with exactly the vocabulary of CONFIG; adds BEGIN when special tokens are asked for."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=CONFIG["vocab_size"],
        special_tokens=[BEGIN, END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(stories, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A", pair=f"{BEGIN} $A {BEGIN} $B", special_tokens=[(BEGIN, 0)]
    )
    assert tokenizer.get_vocab_size() == CONFIG["vocab_size"], tokenizer.get_vocab_size()
    return tokenizer


def encode(tokenizer: Tokenizer, stories: list[str]) -> list[list[int]]:
    """The ids of each story, between BEGIN and END."""
    return [[*one.ids, CONFIG["eos_token_id"]] for one in tokenizer.encode_batch(stories)]


def single(stories: list[list[int]], step: int, rows: int) -> tuple[Tensor, Tensor]:
    """Inputs and targets [rows, tokens] of one step, a story a row; targets are NO_TARGET past the end of one."""
    part = [stories[(step * rows + i) % len(stories)] for i in range(rows)]
    ids = torch.full((rows, max(map(len, part))), NO_TARGET)
    for row, one in zip(ids, part, strict=True):
        row[: len(one)] = torch.tensor(one)
    return ids[:, :-1].clamp(min=0), ids[:, 1:]


def packed(stream: Tensor, step: int) -> tuple[Tensor, Tensor]:
    """Inputs and targets of one step from stories one after another, each [PACKED_ROWS, all positions]."""
    need = PACKED_ROWS * CONFIG["max_position_embeddings"]
    start = step * need % (len(stream) - need)
    part = stream[start : start + need + 1]
    return part[:-1].view(PACKED_ROWS, -1), part[1:].view(PACKED_ROWS, -1)


def loss_of(model: Llama, inputs: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy in nats per token."""
    return F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten(), ignore_index=NO_TARGET)


def optimizer_of(model: Llama, rate: float) -> torch.optim.Optimizer:
    """AdamW; matrices decay (which keeps them narrow, so they quantize well), norms do not."""
    matrices = [p for p in model.parameters() if p.dim() == 2]
    norms = [p for p in model.parameters() if p.dim() == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": norms, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), eps=1e-9)


def rate_at(done: float, peak: float) -> float:
    """Learning rate after the fraction `done` of training: a short rise, then a cosine to a fiftieth."""
    rise = min(1.0, done / 0.03)
    return peak * rise * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))


def train(model: Llama, stories: list[list[int]], steps: int, rows: int, peak: float) -> None:
    """Trains in place, printing the loss now and then."""
    optimizer, start, mean = optimizer_of(model, peak), time.time(), None
    stream = torch.tensor([i for one in reversed(stories) for i in one])
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate_at((step + 1) / steps, peak)
        turn, left = divmod(step, PACKED_EVERY)
        loss = loss_of(model, *(packed(stream, turn) if left == 0 else single(stories, step - turn - 1, rows)))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        mean = loss.item() if mean is None else 0.98 * mean + 0.02 * loss.item()
        if step % 50 == 0 or step == steps - 1:
            print(f"step {step:5d} of {steps}  loss {mean:.4f}  {(time.time() - start) / 60:.1f} min", flush=True)


@torch.no_grad()
def bits_per_byte(model: Llama, tokenizer: Tokenizer, stories: list[str]) -> float:
    """Bits the model needs for each byte of the stories, each read alone after BEGIN, its END included."""
    bits = 0.0
    for text in stories:
        ids = torch.tensor(encode(tokenizer, [text]))
        bits += loss_of(model, ids[:, :-1], ids[:, 1:]).item() * (ids.shape[1] - 1) / math.log(2)
    return bits / sum(len(text.encode()) for text in stories)


@torch.no_grad()
def greedy(model: Llama, tokenizer: Tokenizer, prompt: str, limit: int = 200) -> str:
    """The prompt and its most likely continuation, up to END or `limit` tokens."""
    ids = tokenizer.encode(prompt).ids
    for _ in range(limit):
        ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
        if ids[-1] == CONFIG["eos_token_id"]:
            break
    return tokenizer.decode(ids)


def save_weights(model: Llama, folder: Path) -> None:
    """model.safetensors: every tensor as float16 under its Hugging Face name (no lm_head, it is tied)."""
    tensors = {f"model.{name}": p.detach().half().contiguous() for name, p in model.named_parameters()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)


def stored(folder: Path) -> Llama:
    """The model as it lies in the folder, computing in float32."""
    model = Llama()
    tensors = load_file(folder / "model.safetensors")
    model.load_state_dict({name.removeprefix("model."): t.float() for name, t in tensors.items()})
    return model.eval()


def save_json(value: dict, path: Path) -> None:
    """One JSON file, indented."""
    path.write_text(json.dumps(value, indent=2) + "\n")


def save_folder(model: Llama, tokenizer: Tokenizer, folder: Path) -> None:
    """Weights, configuration and tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(model, folder)
    save_json(CONFIG, folder / "config.json")
    tokenizer.save(str(folder / "tokenizer.json"))
    tokens = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": BEGIN, "eos_token": END}
    limits = {"model_max_length": CONFIG["max_position_embeddings"], "clean_up_tokenization_spaces": False}
    save_json(tokens | limits, folder / "tokenizer_config.json")


def fill_card(folder: Path, figures: dict[str, str]) -> None:
    """README.md from card.md beside this file, its $words replaced."""
    text = Path(__file__).with_name("card.md").read_text()
    for word, value in figures.items():
        text = text.replace(f"${word}", value)
    (folder / "README.md").write_text(text)


def put(folder: Path, out: Path) -> None:
    """Moves a finished folder into the place of `out`."""
    old = out.with_name(f".{out.name}.old")
    if out.exists():
        os.rename(out, old)
    os.rename(folder, out)
    shutil.rmtree(old, ignore_errors=True)


def parse() -> argparse.Namespace:
    """The command line."""
    root = Path(__file__).parents[2]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=root / "src/tapeout/data/models/fable")
    parser.add_argument("--steps", type=int, default=3600)
    parser.add_argument("--rows", type=int, default=8, help="stories in a batch")
    parser.add_argument("--rate", type=float, default=4e-3, help="highest learning rate")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def measure(model: Llama, tokenizer: Tokenizer) -> dict[str, str]:
    """What the card says of the trained model."""
    held = [story(HELD_OUT_SEED + i) for i in range(500)]
    size = sum(len(text.encode()) for text, _ in held)
    return {
        "bits": f"{bits_per_byte(model, tokenizer, [text for text, _ in held]):.3f}",
        "choices": f"{sum(bits for _, bits in held) / size:.3f}",
        "parameters": f"{sum(p.numel() for p in model.parameters()):,}",
        "sample": greedy(model, tokenizer, ""),
        "prompted": greedy(model, tokenizer, "Lily found a"),
    }


def main() -> None:
    """Trains, measures, writes."""
    options, start = parse(), time.time()
    torch.set_num_threads(options.threads)
    torch.manual_seed(SEED)
    print(f"seed {SEED}; training stories from seed 0; held-out stories from seed {HELD_OUT_SEED}")

    turns = -(-options.steps // PACKED_EVERY)
    stories = [story(seed)[0] for seed in range((options.steps - turns) * options.rows)]
    tokenizer = train_tokenizer(stories)
    ids = encode(tokenizer, stories)
    tokens = sum(map(len, ids))
    print(f"{len(ids)} stories, {tokens / len(ids):.0f} tokens each, up to {max(map(len, ids))}", flush=True)

    model = Llama()
    train(model, ids, options.steps, options.rows, options.rate)
    minutes = (time.time() - start) / 60

    folder = options.out.with_name(f".{options.out.name}.new")
    save_folder(model, tokenizer, folder)
    tokens += turns * PACKED_ROWS * CONFIG["max_position_embeddings"]
    figures = measure(stored(folder), tokenizer) | {
        "minutes": f"{minutes:.0f}",
        "threads": "one core" if options.threads == 1 else f"{options.threads} cores",
        "tokens": f"{tokens / 1e6:.1f}",
        "stories": f"{len(stories):,}",
    }
    for name, value in figures.items():
        print(f"{name}: {value}")
    fill_card(folder, figures)
    put(folder, options.out)
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()
