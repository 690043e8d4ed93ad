"""Writes small stories: a plot from `schemata`, filled with a cast from `words`. Same seed, same stories.

Every choice goes through `Dice`, which also adds up what the choices cost in bits. That sum is an upper bound of the
entropy of the text (some choices leave no mark in it): a language model that has learned the stories comes down to it.
"""

import math
import random
import re
from collections.abc import Sequence

import schemata
import words

PRONOUNS = {"she": ("she", "her", "her"), "he": ("he", "him", "his")}
NAMED_ONLY = {"newfriend", "sleep"}
"""Plots in which the hero is called by name, so that "the fox" will not do."""


class Dice:
    """A seeded source of choices that counts their cost in `bits`."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.bits = 0.0

    def pick(self, options: Sequence, weights: Sequence[float] | None = None):
        """One of `options`, evenly or by `weights`. Equal options share their chance (they cost less)."""
        weights = weights or [1.0] * len(options)
        at = self.random.choices(range(len(options)), weights)[0]
        same = sum(w for option, w in zip(options, weights, strict=True) if option == options[at])
        self.bits -= math.log2(same / sum(weights))
        return options[at]

    def early(self, options: Sequence):
        """One of `options`, the first ones more often."""
        return self.pick(options, [1 / (4 + i) for i in range(len(options))])

    def chance(self, p: float) -> bool:
        """True with probability `p`."""
        return self.pick((True, False), (p, 1 - p))

    def sample(self, options: Sequence, n: int) -> list:
        """`n` different ones of `options`."""
        left, out = list(options), []
        for _ in range(n):
            out.append(self.pick(left))
            left.remove(out[-1])
        return out


def article(noun: str) -> str:
    """`an apple`, `a ball`."""
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def cap(text: str) -> str:
    """With a capital first letter, the rest untouched."""
    return text[:1].upper() + text[1:]


def being(key: str, name: str, he: str, kind: str) -> dict[str, str]:
    """The template words of one character."""
    he, him, his = PRONOUNS[he]
    out = {"": name, ".he": he, ".him": him, ".his": his, ".a": article(kind), ".own": f"{name}'s", ".full": name}
    out |= {".He": cap(he), ".His": cap(his), ".A": cap(article(kind)), ".Full": cap(name)}
    return {key + field: word for field, word in out.items()}


def name_of(dice: Dice, names: Sequence[str], taken: str | None) -> str:
    """A name from the list, or now and then one that is in no list, so that a model must learn to read names."""
    if dice.chance(0.08):
        return dice.pick(words.FIRST_SYLLABLES) + dice.pick(words.LAST_SYLLABLES)
    return dice.early([name for name in names if name != taken])


def children(dice: Dice) -> dict[str, str]:
    """A child and a friend."""
    out = {}
    for key in "hf":
        she = dice.chance(0.5)
        name = name_of(dice, words.GIRLS if she else words.BOYS, out.get("h"))
        child = "girl" if she else "boy"
        look = dice.early(words.SMALL) + " " if key == "h" else ""
        out |= being(key, name, "she" if she else "he", look + child)
    full = f"{out['h.his']} friend {out['f']}"
    return out | {"f.full": full, "f.Full": cap(full), "f.Full2": cap(out["f.a"]) + f" named {out['f']}"}


def animals(dice: Dice, named: bool) -> dict[str, str]:
    """An animal and a friend of another kind. Without `named` the hero may be just "the fox"."""
    kinds, out = dice.sample(words.KINDS, 2), {}
    for key, kind in zip("hf", kinds, strict=True):
        she = dice.chance(0.5)
        name = name_of(dice, words.SHE_ANIMALS if she else words.HE_ANIMALS, out.get("h"))
        if key == "h" and not named and dice.chance(0.25):
            name = f"the {kind}"
        look = dice.early(words.SMALL) + " " if key == "h" else ""
        out |= being(key, name, "she" if she else "he", look + kind)
    full = f"{out['f']} the {kinds[1]}"
    return out | {"f.full": full, "f.Full": full, "f.Full2": cap(out["f.a"]) + f" named {out['f']}"}


def family(dice: Dice, cast: dict[str, str]) -> dict[str, str]:
    """One of the hero's parents, as `e`."""
    kin, he = dice.early(words.PARENTS)
    return being("e", f"{cast['h.his']} {kin}", he, kin) | {"e.call": cap(kin)}


def thing(key: str, noun: str, color: str) -> dict[str, str]:
    """The template words of one thing: `t` red ball, `t.n` ball, `t.a` a red ball."""
    return {key: f"{color} {noun}", f"{key}.n": noun, f"{key}.a": article(f"{color} {noun}")}


def noun(key: str, word: str) -> dict[str, str]:
    """The template words of a thing without color."""
    return {key: word, f"{key}.a": article(word)}


class Cast(dict):
    """Template words of one story, each drawn when first asked for (so an unused word costs no bits)."""

    def __init__(self, dice: Dice, plot: str) -> None:
        human = plot != "wisdom" and dice.chance(0.6)
        super().__init__(children(dice) if human else animals(dice, plot in NAMED_ONLY))
        self.dice, self.plot = dice, plot
        self["H"] = cap(self["h"])

    def __missing__(self, key: str) -> str:
        group = re.match(r"[a-z]+", key)[0]
        self.update(getattr(self, f"draw_{group}", self.draw_place)())
        return self[key]

    def draw_e(self):
        return family(self.dice, self)

    def draw_home(self):
        return {"home": self.dice.pick(words.HOMES)}

    def draw_t(self):
        nouns = words.LIGHT if self.plot == "stuck" else words.TOYS
        first, second = self.dice.sample(nouns, 2)
        return thing("t", first, self.dice.pick(words.COLORS)) | thing("t2", second, self.dice.pick(words.COLORS))

    def draw_food(self):
        first, second = self.dice.sample(words.FOODS, 2)
        return noun("food", first) | noun("food2", second)

    def draw_fear(self):
        name, near, say = self.dice.pick(words.FEARS)
        return {"fear": name, "fear.near": near, "fear.Near": cap(near), "fear.say": say}

    def draw_pet(self):
        name, trouble, cure = self.dice.pick(words.TROUBLES)
        return noun("pet", name) | {"pet.trouble": trouble, "pet.help": cure}

    def draw_craft(self):
        name, verb, parts = self.dice.pick(words.CRAFTS)
        return noun("craft", name) | {"craft.verb": verb} | noun("part", self.dice.pick(parts))

    draw_part = draw_craft

    def draw_skill(self):
        name, did = self.dice.pick(words.SKILLS)
        return {"skill": name, "skill.did": did}

    def draw_gold(self):
        name, do = self.dice.pick(words.TREASURES)
        return {"gold": name, "gold.do": do}

    def draw_frag(self):
        return noun("frag", self.dice.pick(words.FRAGILE))

    def draw_plant(self):
        return noun("plant", self.dice.pick(words.FLOWERS))

    def draw_key(self):
        return noun("key", self.dice.pick(words.KEYS))

    def draw_g(self):
        kind = self.dice.pick({"race": words.FAST, "greed": words.GREEDY}.get(self.plot, words.KINDS))
        return being("g", kind, "he", kind)

    def draw_k(self):
        kinds = {"race": words.SLOW}.get(self.plot, words.KINDS)
        kind = self.dice.pick([k for k in kinds if k != self["g"]])
        return being("k", kind, "she", kind)

    def draw_place(self):
        place, where, spots = self.dice.pick(words.PLACES)
        out = {"p.to": f"to the {place}", "p.in": f"{where} the {place}"}
        for i, spot in enumerate(self.dice.sample(spots, 3), 1):
            out |= {f"s{i}": spot, f"s{i}.Cap": cap(spot)}
        return out


def expand(template: str, cast: Cast, dice: Dice) -> str:
    """The template with its choices made and its words filled in."""
    out, at = "", 0
    for mark in re.finditer(r"[\[{<]", template):
        if mark.start() < at:
            continue
        out += template[at : mark.start()]
        at = closing(template, mark.start())
        inside = template[mark.start() + 1 : at - 1]
        if mark[0] == "[":
            out += expand(dice.pick(branches(inside)), cast, dice)
        else:
            out += expand(cast[inside] if mark[0] == "{" else schemata.PARTS[part(inside, cast)], cast, dice)
    return out + template[at:]


def part(name: str, cast: Cast) -> str:
    """The name of a part for this cast: a hero without a name is introduced otherwise."""
    return "intro_unnamed" if name == "intro" and cast["h"].startswith("the ") else name


def closing(text: str, start: int) -> int:
    """The position after the bracket that closes the one at `start`."""
    opens, closes = text[start], {"[": "]", "{": "}", "<": ">"}[text[start]]
    depth = 0
    for at in range(start, len(text)):
        depth += (text[at] == opens) - (text[at] == closes)
        if not depth:
            return at + 1
    raise ValueError(f"{opens} is not closed in: {text[start : start + 60]}")


def branches(text: str) -> list[str]:
    """The alternatives of a choice: split at each `|` outside inner brackets."""
    out, depth = [""], 0
    for char in text:
        depth += (char == "[") - (char == "]")
        if char == "|" and not depth:
            out.append("")
        else:
            out[-1] += char
    return [" ".join(branch.split()) for branch in out]


def capitals(text: str) -> str:
    """Each sentence and each quotation with a capital letter, single spaces."""
    text = " ".join(text.split())
    start = r'(^"?|(?<=[.!?]) |(?<=\.") |(?<= )"|(?<=[.!?]) "|(?<=\.") ")([a-z])'
    return re.sub(start, lambda m: m[1] + m[2].upper(), text)


def story(seed: int) -> tuple[str, float]:
    """Story number `seed` and the bits its choices cost."""
    dice = Dice(seed)
    name, plot, _ = dice.pick(schemata.PLOTS, [weight for *_, weight in schemata.PLOTS])
    return capitals(expand(plot, Cast(dice, name), dice)), dice.bits


if __name__ == "__main__":
    for seed in range(12):
        print(story(seed)[0], "\n")
