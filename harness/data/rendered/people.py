"""Who is rendered: body, clothes, hair and bag of one identity, as seen in each spectrum.

Near infrared shows a dyed cloth at another brightness than visible light does. Here its reflectance follows the
visible luminance only in part (:data:`LUMINANCE_TIE`), patterns may fade, and the order of a pattern's two
cloths is mostly, not always, kept. Skin is bright and even. So outline and pattern link the two modalities;
colour and brightness hardly do.

Thermal images show warmth: skin most, then hair, then cloth, the less the thicker it is; what is carried is nearly
as cold as the room. How thick a cloth is follows from its infrared reflectance (any number of its own would do), and
a print is no thicker than the cloth it is on, so that patterns nearly vanish. So outline and the order of warm and
cold parts link thermal to visible images.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from harness.data.rendered.cameras import Spectrum
from harness.data.rendered.shapes import Array

LUMINANCE_TIE = 0.65
CONTRAST_KEPT = 0.9
PATTERN_VANISHES = 0.05
THERMAL_PATTERN = 0.25
"""The share of a pattern's infrared contrast that is left in thermal images."""

HAIR_STYLES = ("bald", "short", "full", "bob", "long", "bun")
HATS = ("none", "none", "none", "cap", "beanie", "brim")
UPPER_PATTERNS = (
    "plain", "plain", "bands", "columns", "check", "dots", "halves", "belt", "diagonal", "yoke",
)  # fmt: skip
LOWER_PATTERNS = ("plain", "plain", "side", "hem", "knee", "bands", "check")
LOWER_KINDS = ("trousers", "trousers", "trousers", "shorts", "skirt", "long skirt")
BAGS = ("none", "none", "backpack", "sling", "hand", "tote")
LOGOS = ("none", "none", "disc", "square", "bar")

_LUMINANCE = np.asarray((0.299, 0.587, 0.114))
_LEAST_CONTRAST = 0.30


@dataclass(frozen=True)
class Wardrobe:
    """Reflectances in one spectrum: [C] each, garments [2, C] (their two cloths)."""

    skin: Array
    hair: Array
    upper: Array
    lower: Array
    hat: Array
    shoes: Array
    bag: Array


@dataclass(frozen=True)
class Person:
    """One identity. Lengths are in body heights; ``shoulder``, ``waist`` and ``hip`` are half widths."""

    height: float
    shoulder: float
    waist: float
    hip: float
    leg: float
    head: float
    limb: float
    arm_spread: float
    hair: str
    hat: str
    sleeve: float
    hem: float
    lower: str
    lower_length: float
    boots: bool
    upper_pattern: str
    upper_periods: float
    upper_phase: float
    lower_pattern: str
    lower_periods: float
    logo: str
    bag: str
    bag_side: int
    bag_size: float
    visible: Wardrobe
    infrared: Wardrobe


def draw_person(rng: Generator) -> Person:
    """A random person."""
    shoulder = rng.uniform(0.080, 0.122)
    lower = _choose(rng, LOWER_KINDS)
    visible, infrared = _draw_wardrobes(rng)
    return Person(
        height=rng.uniform(0.84, 1.0),
        shoulder=shoulder,
        waist=shoulder * rng.uniform(0.66, 0.98),
        hip=shoulder * rng.uniform(0.72, 1.05),
        leg=rng.uniform(0.44, 0.54),
        head=rng.uniform(0.050, 0.063),
        limb=rng.uniform(0.021, 0.034),
        arm_spread=rng.uniform(-0.005, 0.045),
        hair=_choose(rng, HAIR_STYLES),
        hat=_choose(rng, HATS),
        sleeve=float(rng.choice((0.12, 0.38, 0.62, 0.95, 0.95))),
        hem=float(rng.choice((0.0, 0.02, 0.05, 0.10, 0.20))),
        lower=lower,
        lower_length=_lower_length(rng, lower),
        boots=bool(rng.random() < 0.3),
        upper_pattern=_choose(rng, UPPER_PATTERNS),
        upper_periods=rng.uniform(1.8, 3.8),
        upper_phase=rng.uniform(0.0, 1.0),
        lower_pattern=_choose(rng, LOWER_PATTERNS),
        lower_periods=rng.uniform(1.8, 3.8),
        logo=_choose(rng, LOGOS),
        bag=_choose(rng, BAGS),
        bag_side=int(rng.choice((-1, 1))),
        bag_size=rng.uniform(0.75, 1.3),
        visible=visible,
        infrared=infrared,
    )


def _choose(rng: Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]


def _lower_length(rng: Generator, kind: str) -> float:
    """How far down the leg the lower garment reaches, 0 hip .. 1 ankle."""
    low, high = {
        "trousers": (0.88, 1.0), "shorts": (0.32, 0.55), "skirt": (0.30, 0.55), "long skirt": (0.65, 0.95),
    }[kind]  # fmt: skip
    return rng.uniform(low, high)


def _draw_wardrobes(rng: Generator) -> tuple[Wardrobe, Wardrobe]:
    """The same clothes in visible light and in near infrared."""
    skin_tone = rng.uniform(0.35, 1.0)
    skin = np.asarray((0.92, 0.70, 0.56)) * skin_tone
    skin_infrared = rng.uniform(0.68, 0.85)
    hair = np.asarray((0.50, 0.38, 0.27)) * rng.uniform(0.15, 1.3)
    hair_infrared = 0.7 * rng.uniform(0.1, 0.9)
    visible: dict[str, Array] = {"skin": _colour(skin), "hair": _colour(hair)}
    infrared: dict[str, Array] = {"skin": _colour([skin_infrared]), "hair": _colour([hair_infrared])}
    for garment in ("upper", "lower"):
        visible[garment], infrared[garment] = _draw_garment(rng)
    for extra in ("hat", "shoes", "bag"):
        cloth = _draw_cloth(rng)
        visible[extra], infrared[extra] = _colour(cloth), _colour([_infrared_of(rng, cloth)])
    return Wardrobe(**visible), Wardrobe(**infrared)


def _draw_garment(rng: Generator) -> tuple[Array, Array]:
    """A garment's two cloths, visible [2, 3] and infrared [2, 1]."""
    first = _draw_cloth(rng)
    second = _draw_cloth(rng)
    while abs(float((first - second) @ _LUMINANCE)) < _LEAST_CONTRAST:
        second = _draw_cloth(rng)
    order = float(np.sign((second - first) @ _LUMINANCE))
    if rng.random() > CONTRAST_KEPT:
        order = -order
    contrast = rng.uniform(0.28, 0.5) * rng.uniform(0.5, 1.0)
    if rng.random() < PATTERN_VANISHES:
        contrast = 0.0
    base = _infrared_of(rng, first)
    infrared = np.clip([[base], [base + order * contrast]], 0.03, 0.97)
    return _colour([first, second]), _colour(infrared)


def _draw_cloth(rng: Generator) -> np.ndarray:
    """A visible cloth colour, [3]: often grey, often blue, else any hue."""
    kind = rng.random()
    if kind < 0.30:
        return np.full(3, rng.uniform(0.05, 0.95))
    hue = rng.uniform(0.55, 0.68) if kind < 0.55 else rng.uniform(0.0, 1.0)
    return np.asarray(colorsys.hsv_to_rgb(hue, rng.uniform(0.35, 0.95), rng.uniform(0.2, 0.95)))


def _infrared_of(rng: Generator, cloth: np.ndarray) -> float:
    luminance = float(cloth @ _LUMINANCE)
    mixed = LUMINANCE_TIE * luminance + (1.0 - LUMINANCE_TIE) * rng.uniform(0.05, 0.95)
    return float(np.clip(mixed, 0.03, 0.97))


def _colour(values: object) -> Array:
    return np.clip(np.asarray(values, dtype=np.float32), 0.0, 1.0)


def wardrobe_in(spectrum: Spectrum, person: Person) -> Wardrobe:
    """What ``person`` wears, as seen in ``spectrum``."""
    if spectrum == "thermal":
        return _thermal_wardrobe(person.infrared)
    return person.infrared if spectrum == "infrared" else person.visible


def _thermal_wardrobe(infrared: Wardrobe) -> Wardrobe:
    """Warmth, 0 the coldest .. 1 the warmest, in place of reflectance; it draws nothing at random."""

    def through(reflectance: Array, warmest: float, coldest: float) -> Array:
        return _colour(warmest + reflectance * (coldest - warmest))

    def garment(cloths: Array) -> Array:
        return through(cloths[0] + np.asarray([[0.0], [THERMAL_PATTERN]]) * (cloths[1] - cloths[0]), 0.76, 0.34)

    return Wardrobe(
        skin=_colour([0.92]),
        hair=through(infrared.hair, 0.66, 0.50),
        upper=garment(infrared.upper),
        lower=garment(infrared.lower),
        hat=through(infrared.hat, 0.50, 0.34),
        shoes=through(infrared.shoes, 0.46, 0.30),
        bag=through(infrared.bag, 0.34, 0.24),
    )
