"""The model card of the bases that ship, written from what each file says of itself.

python -m fslab.weights.cards
"""

from collections.abc import Callable
from pathlib import Path

from fslab.base import Base
from fslab.storage import write_bytes
from fslab.weights import WEIGHTS, weights_path

CARD = Path(__file__).parent / "BASES.md"

HEAD = """# The bases that ship

A base is an encoder and one decoder that draws anybody, told whom by a vector of {style} numbers. `fslab train`
starts from one: it fits each person's vector, works it into a decoder of their own, and trains on. Written by
`python -m fslab.weights.cards` from what the files say of themselves.

| | {names} |
|---|{rules}|
{rows}

## What they are for

A start for training a swap between two people who agreed and sat for a minute of footage each, and for lessons on
what such a network has learnt. A base alone knows nobody but rendered people: it cannot draw a real person without
that person's footage.

## Data

Rendered adults, nobody real, made by `fslab synth faces` from CC0 meshes and skins (`fslab/synth/data/README.md`).
They come in scenes of eight people who show the same pose, expression, gaze and light; sex, age and three groups of
looks are balanced by construction. Benchmark people (seeds 0 to 17) and the packaged ada and dan are not among
them; nor are those held out: {held}.

{sources}

## Training

Of every hundred faces, {swapped} are drawn from a picture of another person in the same scene, laid over it as a
perfect swap would be, the others from a picture of the person drawn. Inputs are turned, scaled, tinted, blurred,
compressed, grained and partly covered. Loss: mean absolute difference, structural difference, differences of edges,
cross-entropy of the mask; {rule}, cosine rates, averaged weights; seed {seed}. The weights kept are those that
scored best on the people held out, whose vectors are fitted to half of their pictures before the others are swapped.

## Limits

- Everything it knows is rendered: skin, hair and teeth of real people differ. The two public-domain photographs
  that `benchmarks.base` redraws show how far it carries; fine-tuning on real footage does the rest.
- Soft: it saw faces of {size} px for minutes to hours on two processor cores.
- Faces turned by more than 35 degrees, glasses, hands and beards that are meshes of their own were not in its data.
- Three groups of looks and two sexes, mixed, are not the variety of people. Nothing here was measured on groups of
  real people.

## Licence

CC0-1.0, as the people it was trained on. Use it with consent, and leave the marks on.
"""


def _rows(bases: dict[str, Base]) -> dict[str, list[str]]:
    """Return the table's rows: what is told, and its text for each base."""
    cards = [base.card for base in bases.values()]
    return {
        "pictures, px": [str(base.model.config.size) for base in bases.values()],
        "parameters, million": [f"{sum(p.numel() for p in b.model.parameters()) / 1e6:.2f}" for b in bases.values()],
        "file, MB": [f"{weights_path(f'base_{name}.safetensors').stat().st_size / 1e6:.1f}" for name in bases],
        "people trained on": [str(card["people"]) for card in cards],
        "pictures trained on": [str(card["pictures"]) for card in cards],
        "steps, stage by stage": [", ".join(str(s["step"]) for s in _stages(card)) for card in cards],
        "minutes, stage by stage": [", ".join(f"{s['seconds'] / 60:.0f}" for s in _stages(card)) for card in cards],
        "people, stage by stage": [", ".join(str(s["people"]) for s in _stages(card)) for card in cards],
        "people held out: closure of swaps": [f"{card['held_out']['closure']:.3f}" for card in cards],
        "people held out: redrawn, PSNR in the face, dB": [f"{card['held_out']['own']:.1f}" for card in cards],
        "people held out: sharpness, share of the truth's": [f"{card['held_out']['sharpness']:.2f}" for card in cards],
    }


def _stages(card: dict) -> list[dict]:
    """Return the trainings a base went through, each beginning with the one before; the last is its own."""
    return [*card.get("stages", []), card]


def write_card(bases: dict[str, Base]) -> str:
    """Return the model card of bases by name, as Markdown."""
    rows = "\n".join(f"| {title} | {' | '.join(cells)} |" for title, cells in _rows(bases).items())
    first = next(iter(bases.values()))
    sources = {s["what"]: s for base in bases.values() for s in base.card["sources"]}
    held = sorted({name for base in bases.values() for name in base.card["held_out_people"]})
    lines = [
        f"- {s['what']}: {s['pictures']} pictures of {s.get('side', '?')} px, {s.get('licence', '?')}, "
        f"SHA-256 {s.get('hash', '?')[:16]}…"
        for s in sources.values()
    ]

    def each(setting: str, text: Callable[[object], str]) -> str:
        values = dict.fromkeys(text(base.card["pretrain"].get(setting, "adamw")) for base in bases.values())
        return " and ".join(values)

    return HEAD.format(
        style=first.model.style, names=" | ".join(f"`{name}`" for name in bases), rules="|".join("---:" for _ in bases),
        swapped=each("own", lambda share: f"{100 * (1 - share):.0f}"), rule=each("optimizer", str),
        rows=rows, held=", ".join(held), sources="\n".join(lines), seed=each("seed", str),
        size=" and ".join(str(base.model.config.size) for base in bases.values()),
    )  # fmt: skip


def packaged_bases() -> dict[str, Base]:
    """Return the bases that ship, by name."""
    names = [name.removeprefix("base_").removesuffix(".safetensors") for name in WEIGHTS if name.startswith("base_")]
    return {name: Base.load(name) for name in sorted(names, key=len)}


if __name__ == "__main__":
    write_bytes(CARD, write_card(packaged_bases()).encode())
