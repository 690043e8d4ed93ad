"""Trains the ternary twin of the model that ships inside the package: the weights of its chip take two bits.

    python tools/embedded_model/train_ternary.py [--steps 2200] [--out src/tapeout/data/models/fable_ternary]

Starts from the weights of `fable` and learns to predict what `fable` predicts (the whole distribution of each next token)
on the stories that `fable` was trained on, while every forward pass computes with the numbers that will be stored:
projections ternary, the table of embedding and head int8, each with one binary16 scale per 32 neighbours of a row, as
`tapeout.quantize` encodes them; the inputs of projections rounded to the chip's int8. Gradients go straight through the
rounding. Needs torch, tokenizers, safetensors and tapeout, whose engine gives the exact figures of the card. A run that was
stopped goes on from the checkpoint in --work.
"""

import argparse
import json
import math
import shutil
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from corpus import story
from exact_bits import figures as exact_figures
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from train import (
    CONFIG,
    HELD_OUT_SEED,
    NO_TARGET,
    PACKED_EVERY,
    PACKED_ROWS,
    Llama,
    bits_per_byte,
    encode,
    greedy,
    optimizer_of,
    packed,
    rate_at,
    single,
    stored,
)

GROUP = 32
SEED = 2025
HORIZON = 5400
"""Steps whose stories are made, and that the slow fall of the learning rate is planned for; a run may end well before."""
TABLE = "embed_tokens.weight"
SAVE_EVERY = 100


def grouped(weight: Tensor) -> Tensor:
    """[rows, columns] as [rows, groups, 32]."""
    return weight.unflatten(-1, (-1, GROUP))


def half(scale: Tensor) -> Tensor:
    """As binary16 holds it."""
    return scale.half().float()


def codes_of(groups: Tensor, scale: Tensor, most: int) -> Tensor:
    """The nearest codes, 0 where the scale is 0."""
    return (groups / torch.where(scale == 0, math.inf, scale)).round().clamp(-most, most)


def ternary(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(codes [rows, groups, 32], scale [rows, groups, 1]): the scale is the mean magnitude."""
    groups = grouped(weight)
    scale = half(groups.abs().mean(-1, keepdim=True))
    return codes_of(groups, scale, 1), scale


def int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """The same for the table: the greatest magnitude gets code 127."""
    groups = grouped(weight)
    scale = half(groups.abs().amax(-1, keepdim=True) / 127)
    return codes_of(groups, scale, 127), scale


def encoder(name: str):
    """How the matrix of that name is stored."""
    return int8 if name == TABLE else ternary


def straight_through(weight: Tensor, rounded: Tensor) -> Tensor:
    """`rounded`, with the gradient of `weight`."""
    return weight + (rounded - weight).detach()


def as_stored(name: str, weight: Tensor) -> Tensor:
    """A parameter as the file will hold it: matrices rounded, norms to binary16."""
    with torch.no_grad():
        if weight.dim() == 1:
            rounded = half(weight)
        else:
            codes, scale = encoder(name)(weight)
            rounded = (codes * scale).flatten(1)
    return straight_through(weight, rounded)


def activations(x: Tensor) -> Tensor:
    """x as packets of the chip hold it: groups of 32, int8 times n * 2^e with n in 8..15."""
    with torch.no_grad():
        groups = grouped(x)
        need = groups.abs().amax(-1, keepdim=True).clamp(min=2.0**-90) / 127
        power = torch.exp2(torch.floor(torch.log2(need)) - 3)
        scale = torch.ceil(need / power) * power
        rounded = ((groups / scale).round().clamp(-127, 127) * scale).flatten(-2)
    return straight_through(x, rounded)


class Twin(Llama):
    """The model whose projections read packets."""

    def __init__(self) -> None:
        super().__init__()
        for layer in self.layers:
            layer.input_layernorm.register_forward_hook(lambda _module, _args, out: activations(out))
            layer.post_attention_layernorm.register_forward_hook(lambda _module, _args, out: activations(out))
            for module in (layer.self_attn.o_proj, layer.mlp.down_proj):
                module.register_forward_pre_hook(lambda _module, args: (activations(args[0]),))
        self.norm.register_forward_hook(lambda _module, _args, out: activations(out))

    def rounded(self) -> dict[str, Tensor]:
        """Every parameter as it will be stored."""
        return {name: as_stored(name, p) for name, p in self.named_parameters()}

    def logits(self, ids: Tensor) -> Tensor:
        """Logits [batch, tokens, vocabulary] as the stored model computes them."""
        return torch.func.functional_call(self, self.rounded(), (ids,))


def divergence(twin: Twin, teacher: Llama, inputs: Tensor, targets: Tensor) -> Tensor:
    """Mean KL(teacher, twin) in nats per token that is predicted."""
    read = targets != NO_TARGET
    with torch.no_grad():
        wanted = F.log_softmax(teacher(inputs)[read], -1)
    return F.kl_div(F.log_softmax(twin.logits(inputs)[read], -1), wanted, reduction="batchmean", log_target=True)


def rate_of(step: int, options: argparse.Namespace) -> float:
    """Learning rate of a step: a cosine over the horizon, brought down to nothing from step `fall` on."""
    left = (options.steps - step) / (options.steps - options.fall)
    return rate_at((step + 1) / HORIZON, options.rate) * min(1.0, left)


def train(twin: Twin, teacher: Llama, stories: list[list[int]], options: argparse.Namespace) -> float:
    """Trains in place, printing the divergence now and then; returns the minutes it took, pauses not counted."""
    optimizer = optimizer_of(twin, options.rate)
    first, mean, minutes = restore(twin, optimizer, options.work)
    stream = torch.tensor([i for one in reversed(stories) for i in one])
    start = time.time() - 60 * minutes
    for step in range(first, options.steps):
        for group in optimizer.param_groups:
            group["lr"] = rate_of(step, options)
        optimizer.param_groups[0]["weight_decay"] = 0.1 if step < options.fall else 0.0
        turn, left = divmod(step, PACKED_EVERY)
        part = packed(stream, turn) if left == 0 else single(stories, step - turn - 1, options.rows)
        loss = divergence(twin, teacher, *part)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(twin.parameters(), 1.0)
        optimizer.step()
        mean = loss.item() if mean is None else 0.98 * mean + 0.02 * loss.item()
        minutes = (time.time() - start) / 60
        if step % 50 == 0 or step == options.steps - 1:
            print(f"step {step:5d} of {options.steps}  KL {mean:.4f}  {minutes:.1f} min", flush=True)
        if (step + 1) % SAVE_EVERY == 0 or step == options.steps - 1:
            keep(twin, optimizer, options.work, step + 1, mean, minutes)
    return minutes


def keep(
    twin: Twin, optimizer: torch.optim.Optimizer, work: Path, step: int, mean: float | None, minutes: float
) -> None:
    """Writes the checkpoint."""
    work.parent.mkdir(parents=True, exist_ok=True)
    part = work.with_suffix(".part")
    state = {"twin": twin.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(state | {"step": step, "mean": mean, "minutes": minutes}, part)
    part.replace(work)


def restore(twin: Twin, optimizer: torch.optim.Optimizer, work: Path) -> tuple[int, float | None, float]:
    """(steps done, running mean, minutes) of the checkpoint, which is loaded where there is one."""
    if not work.exists():
        return 0, None, 0.0
    state = torch.load(work)
    twin.load_state_dict(state["twin"])
    optimizer.load_state_dict(state["optimizer"])
    return state["step"], state["mean"], state["minutes"]


def packed_codes(codes: Tensor, bits: int) -> Tensor:
    """Codes [rows, columns] as int32 words [rows, columns * bits / 32], lowest bits first, each code plus half its range."""
    whole = (codes.long() + (1 << bits - 1)).unflatten(1, (-1, 32 // bits))
    words = (whole << torch.arange(0, 32, bits)).sum(-1)
    return torch.where(words >= 2**31, words - 2**32, words).int()


def tensors_of(name: str, p: Tensor) -> dict[str, Tensor]:
    """What the file holds of one parameter: a norm as binary16, a matrix as codes, scales and shape."""
    if p.dim() == 1:
        return {name: p.half()}
    codes, scale = encoder(name.removeprefix("model."))(p)
    words = packed_codes(codes.flatten(1), 8 if name.endswith(TABLE) else 2)
    return {f"{name}_packed": words, f"{name}_scale": scale.flatten(1).half(), f"{name}_shape": torch.tensor(p.shape)}


@torch.no_grad()
def save(twin: Twin, teacher: Path, folder: Path) -> None:
    """The folder in Hugging Face format, its matrices in the layout pack-quantized of compressed-tensors."""
    tensors: dict[str, Tensor] = {}
    for name, p in twin.named_parameters():
        tensors |= {key: one.contiguous() for key, one in tensors_of(f"model.{name}", p).items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    kinds = {"ternary": (2, "Linear"), "table": (8, "Embedding")}
    groups = {
        name: {
            "targets": [target],
            "weights": {"num_bits": bits, "type": "int", "symmetric": True, "strategy": "group", "group_size": GROUP},
        }
        for name, (bits, target) in kinds.items()
    }
    quantization = {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": groups}
    config = json.dumps(CONFIG | {"quantization_config": quantization}, indent=2)
    (folder / "config.json").write_text(config + "\n")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(teacher / name, folder / name)


@torch.no_grad()
def measure(twin: Twin, teacher: Llama, tokenizer: Tokenizer) -> dict[str, str]:
    """What the card says of the stored numbers, activations rounded as in training."""
    for name, p in twin.named_parameters():
        p.copy_(as_stored(name, p))
    held = [story(HELD_OUT_SEED + i)[0] for i in range(500)]
    return {
        "bits": f"{bits_per_byte(Computed(twin), tokenizer, held):.3f}",
        "float": f"{bits_per_byte(teacher, tokenizer, held):.3f}",
        "sample": greedy(Computed(twin), tokenizer, ""),
        "prompted": greedy(Computed(twin), tokenizer, "Lily found a"),
    }


class Computed(nn.Module):
    """A twin whose parameters are the stored ones already."""

    def __init__(self, twin: Twin) -> None:
        super().__init__()
        self.twin = twin

    def forward(self, ids: Tensor) -> Tensor:
        return Llama.forward(self.twin, ids)


def parse() -> argparse.Namespace:
    """The command line."""
    models = Path(__file__).parents[2] / "src/tapeout/data/models"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--teacher", type=Path, default=models / "fable")
    parser.add_argument("--out", type=Path, default=models / "fable_ternary")
    parser.add_argument("--work", type=Path, default=Path("fable_ternary.checkpoint"), help="checkpoint of the run")
    parser.add_argument("--steps", type=int, default=2200)
    parser.add_argument("--fall", type=int, default=1900, help="step from which the learning rate falls to nothing")
    parser.add_argument("--rows", type=int, default=8, help="stories in a batch")
    parser.add_argument("--rate", type=float, default=3e-3, help="highest learning rate")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def main() -> None:
    """Trains, measures, writes."""
    options = parse()
    torch.set_num_threads(options.threads)
    torch.manual_seed(SEED)
    print(f"seed {SEED}; training stories from seed 0; held-out stories from seed {HELD_OUT_SEED}")
    turns = -(-HORIZON // PACKED_EVERY)
    tokenizer = Tokenizer.from_file(str(options.teacher / "tokenizer.json"))
    stories = encode(tokenizer, [story(seed)[0] for seed in range((HORIZON - turns) * options.rows)])
    tokens = sum(map(len, stories)) + turns * PACKED_ROWS * 512
    print(f"{len(stories)} stories, {tokens / 1e6:.1f} million tokens", flush=True)
    teacher, twin = stored(options.teacher), Twin()
    twin.load_state_dict(teacher.state_dict())
    minutes = train(twin, teacher, stories, options)
    options.out.mkdir(parents=True, exist_ok=True)
    save(twin, options.teacher, options.out)
    figures = measure(twin, teacher, tokenizer)
    figures |= dict(exact_figures(options.teacher, options.out))
    share = options.steps / HORIZON
    figures |= {"minutes": f"{minutes:.0f}", "steps": f"{options.steps:,}", "tokens": f"{tokens * share / 1e6:.1f}"}
    for name, value in figures.items():
        print(f"{name}: {value}")
    text = Path(__file__).with_name("card_ternary.md").read_text()
    for name, value in figures.items():
        text = text.replace(f"${name}", value)
    (options.out / "README.md").write_text(text)


if __name__ == "__main__":
    main()
