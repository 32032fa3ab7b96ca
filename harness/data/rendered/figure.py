"""A person in a pose, painted onto a canvas part by part, back to front."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from harness.data.rendered.cameras import Spectrum
from harness.data.rendered.patterns import mix, second_cloth
from harness.data.rendered.people import Person, Wardrobe, wardrobe_in
from harness.data.rendered.shapes import Array, Canvas, Point, Window, box_distance, capsule

POSE = 0.7
"""How freely people move; 0 is a person standing still, seen from the front."""

_ANKLE = 0.955
_SHADE = 0.22  # how much darker the edge of a rounded part is


@dataclass(frozen=True)
class Pose:
    """How a person stands in one image."""

    yaw: float
    from_behind: bool
    stride: float
    swing: tuple[float, float]
    wrinkle: float
    wrinkle_phase: float


def draw_pose(rng: Generator) -> Pose:
    """A random pose."""
    freedom = POSE
    stride = rng.uniform(-0.10, 0.10) * freedom
    return Pose(
        yaw=rng.uniform(-0.9, 0.9) * freedom,
        from_behind=bool(rng.random() < 0.3),
        stride=stride,
        swing=(stride + rng.uniform(-0.07, 0.07) * freedom, -stride + rng.uniform(-0.07, 0.07) * freedom),
        wrinkle=rng.uniform(0.0, 0.12),
        wrinkle_phase=rng.uniform(0.0, 2.0 * np.pi),
    )


def paint_person(canvas: Canvas, person: Person, pose: Pose, *, spectrum: Spectrum) -> None:
    """Paint ``person`` in ``pose`` as seen in ``spectrum``."""
    _Painter(canvas, person, pose, wardrobe_in(spectrum, person), shaded=spectrum != "thermal").paint()


class _Painter:
    """One person being painted; the parts share the pose and the lengths that follow from it."""

    def __init__(self, canvas: Canvas, person: Person, pose: Pose, wardrobe: Wardrobe, *, shaded: bool) -> None:
        self.canvas, self.person, self.pose, self.wardrobe, self.shaded = canvas, person, pose, wardrobe, shaded
        # Turning narrows the trunk, but a body is about half as deep as it is wide.
        self.narrow = float(np.hypot(np.cos(pose.yaw), 0.5 * np.sin(pose.yaw)))
        self.slide = float(np.sin(pose.yaw))
        self.mirror = -1 if pose.from_behind else 1
        self.shoulder = person.shoulder * self.narrow
        self.hip = person.hip * self.narrow
        self.chin = 2.1 * person.head
        self.shoulder_y = self.chin + 0.035
        self.hip_y = 1.0 - person.leg

    def paint(self) -> None:
        behind = self.pose.from_behind
        if self.person.bag == "backpack" and not behind:
            self._backpack()
        self._legs()
        self._skirt()
        self._arm(side=-1)
        self._torso()
        if not behind:
            self._logo()
        self._arm(side=1)
        self._head()
        self._carried_bag()
        if self.person.bag == "backpack":
            self._backpack() if behind else self._straps()

    def _shade(self, u: Array, v: Array, amount: float = _SHADE) -> Array:
        """Light on a rounded, creased part, float32 [h, w, 1]; even where the part shines by itself."""
        if not self.shaded:
            return np.ones((1, 1, 1), dtype=np.float32)
        light = 1.0 - amount * np.minimum(u * u, 1.0)
        if self.pose.wrinkle > 0.02:
            light = light + self.pose.wrinkle * np.sin(17.0 * v + 4.0 * u + self.pose.wrinkle_phase)
        return light[..., None]

    # legs ------------------------------------------------------------------------------------------------------

    def _legs(self) -> None:
        for side in (-1, 1):
            self._leg(side)

    def _leg(self, side: int) -> None:
        person, canvas = self.person, self.canvas
        hip = (side * self.hip * 0.5, self.hip_y)
        ankle = (side * (self.hip * 0.42 + 0.012) + side * self.pose.stride, _ANKLE)
        wide, thin = person.limb * 1.75, person.limb * 1.05
        if person.lower == "trousers":
            thin *= 1.2
        self._shoe(side, ankle, thin)
        window = canvas.around(hip, ankle, wide)
        if window.is_empty:
            return
        distance, v, u = capsule(window, hip, ankle, wide, thin)
        colour = self._leg_colour(u * side * self.mirror, v)
        canvas.paint(window, canvas.coverage(distance), colour * self._shade(u, v))

    def _leg_colour(self, u: Array, v: Array) -> Array:
        """Cloth down to the hem, then skin, then boots."""
        person, wardrobe = self.person, self.wardrobe
        bare = person.lower in ("skirt", "long skirt")
        hem = 0.0 if bare else person.lower_length
        share = second_cloth(
            person.lower_pattern, u, v / max(hem, 0.2), periods=person.lower_periods, phase=person.upper_phase
        )
        colour = mix(wardrobe.lower, share)
        skin_share = np.clip((v - hem) * 30.0 + 0.5, 0.0, 1.0)[..., None]
        colour = colour + skin_share * (wardrobe.skin - colour)
        if person.boots:
            boot_share = np.clip((v - 0.68) * 30.0, 0.0, 1.0)[..., None]
            colour = colour + boot_share * (wardrobe.shoes - colour)
        return colour

    def _shoe(self, side: int, ankle: Point, radius: float) -> None:
        toe = (ankle[0] + side * 0.018 + 0.03 * self.slide, 0.982)
        self.canvas.stroke((ankle[0], 0.978), toe, radius * 0.8, self.wardrobe.shoes)

    def _skirt(self) -> None:
        person = self.person
        if person.lower not in ("skirt", "long skirt"):
            return
        top = self.hip_y - 0.05
        bottom = self.hip_y + person.lower_length * (_ANKLE - self.hip_y)
        flare = 1.25 if person.lower == "skirt" else 1.45
        window = self.canvas.window(-self.hip * flare, self.hip * flare, top, bottom)
        if window.is_empty:
            return
        v = np.clip((window.y - top) / (bottom - top), 0.0, 1.0)
        half_width = self.hip * (0.95 + (flare - 0.95) * v)
        u = window.x / half_width
        distance = np.minimum(half_width - np.abs(window.x), np.minimum(window.y - top, bottom - window.y))
        share = second_cloth(
            person.lower_pattern, u * self.mirror, v, periods=person.lower_periods, phase=person.upper_phase
        )
        colour = mix(self.wardrobe.lower, share) * self._shade(u, v)
        self.canvas.paint(window, self.canvas.coverage(distance), colour)

    # trunk and arms --------------------------------------------------------------------------------------------

    def _torso(self) -> None:
        person, canvas = self.person, self.canvas
        top, bottom = self.shoulder_y - 0.012, self.hip_y + 0.01 + person.hem
        reach = max(self.shoulder, self.hip) * 1.2
        canvas.box(-0.4 * person.head, 0.4 * person.head, self.chin - 0.02, top + 0.02, self.wardrobe.skin * 0.9)
        window = canvas.window(-reach, reach, top, bottom)
        if window.is_empty:
            return
        half_width = self._half_width(window, bottom)
        u = window.x / half_width
        v = (window.y - top) / (bottom - top)
        slope = 0.35 * np.maximum(np.abs(window.x) - 0.4 * self.shoulder, 0.0)
        distance = np.minimum(half_width - np.abs(window.x), np.minimum(window.y - top - slope, bottom - window.y))
        share = second_cloth(
            person.upper_pattern,
            (u + 0.8 * self.slide) * self.mirror,
            v,
            periods=person.upper_periods,
            phase=person.upper_phase,
        )
        canvas.paint(window, canvas.coverage(distance), mix(self.wardrobe.upper, share) * self._shade(u, v))

    def _half_width(self, window: Window, bottom: float) -> Array:
        """The trunk's half width at each row, float32 [h, 1]."""
        waist_y = self.shoulder_y + 0.62 * (self.hip_y - self.shoulder_y)
        profile = np.interp(
            window.y[:, 0],
            (self.shoulder_y, waist_y, self.hip_y, bottom),
            (self.shoulder, self.person.waist * self.narrow, self.hip * 1.03, self.hip * 1.08),
        )
        return profile.astype(np.float32)[:, None]

    def _logo(self) -> None:
        logo, cloth = self.person.logo, self.wardrobe.upper[1]
        if logo == "none" or self.person.upper_pattern not in ("plain", "yoke"):
            return
        centre = 0.4 * self.slide * self.shoulder
        y = self.shoulder_y + 0.38 * (self.hip_y - self.shoulder_y)
        half = 0.45 * self.shoulder
        if logo == "disc":
            self.canvas.ellipse((centre, y), (half, half), cloth)
        elif logo == "square":
            self.canvas.box(centre - half, centre + half, y - half, y + half, cloth)
        else:
            self.canvas.box(centre - 1.5 * half, centre + 1.5 * half, y - 0.4 * half, y + 0.4 * half, cloth)

    def _arm(self, *, side: int) -> None:
        person, canvas, wardrobe = self.person, self.canvas, self.wardrobe
        radius = person.limb
        start = (side * (self.shoulder - 0.35 * radius), self.shoulder_y + 0.8 * radius)
        hand = self._hand(side)
        canvas.ellipse(hand, (radius * 0.85, radius), wardrobe.skin)
        window = canvas.around(start, hand, radius * 1.25)
        if window.is_empty:
            return
        distance, v, u = capsule(window, start, hand, radius * 1.25, radius * 0.8)
        share: Array | float = 0.0
        if person.upper_pattern in ("bands", "check", "dots"):
            share = second_cloth(
                person.upper_pattern, u * 0.4, v, periods=person.upper_periods, phase=person.upper_phase
            )
        elif person.upper_pattern == "yoke":
            share = second_cloth("yoke", u, v, periods=1.0, phase=person.upper_phase)
        elif person.upper_pattern == "halves":
            share = 1.0 * (v >= 0.0) if side * self.mirror > 0 else 0.0
        cloth = mix(wardrobe.upper, share)
        skin_share = np.clip((v - person.sleeve) * 25.0 + 0.5, 0.0, 1.0)[..., None]
        colour = cloth + skin_share * (wardrobe.skin - cloth)
        canvas.paint(window, canvas.coverage(distance), colour * (0.94 * self._shade(u, v, 0.3)))

    def _hand(self, side: int) -> Point:
        swing = self.pose.swing[0 if side < 0 else 1]
        return side * (self.shoulder + 0.012 + self.person.arm_spread) + swing, self.hip_y + 0.045

    # head ------------------------------------------------------------------------------------------------------

    def _head(self) -> None:
        person, canvas, wardrobe, head = self.person, self.canvas, self.wardrobe, self.person.head
        centre, radii = (0.15 * head * self.slide, 1.12 * head), (0.76 * head, head)
        behind = self.pose.from_behind
        if person.hair in ("bob", "long"):
            self._hanging_hair(in_front=False)
        if person.hair == "bun":
            canvas.ellipse((centre[0], 0.22 * head), (0.42 * head, 0.36 * head), wardrobe.hair)
        canvas.ellipse(centre, radii, wardrobe.skin)
        if not behind:
            self._face(centre)
        if person.hair != "bald":
            self._crown(centre, down_to=1.75 if behind else {"short": 0.62, "full": 0.9}.get(person.hair, 0.78))
        if behind and person.hair in ("bob", "long"):
            self._hanging_hair(in_front=True)
        self._hat(centre)

    def _crown(self, centre: Point, *, down_to: float) -> None:
        """Hair on top of the head, down to ``down_to`` head lengths below the crown."""
        head = self.person.head
        radius = (0.84 * head, 1.06 * head) if self.person.hair != "full" else (0.98 * head, 1.14 * head)
        window = self.canvas.window(centre[0] - radius[0], centre[0] + radius[0], centre[1] - radius[1], down_to * head)
        if window.is_empty:
            return
        reach = np.hypot((window.x - centre[0]) / radius[0], (window.y - centre[1]) / radius[1])
        distance = np.minimum((1.0 - reach) * radius[0], down_to * head - window.y)
        self.canvas.paint(window, self.canvas.coverage(distance), self.wardrobe.hair)

    def _hanging_hair(self, *, in_front: bool) -> None:
        head = self.person.head
        bottom = self.shoulder_y + (0.0 if self.person.hair == "bob" else 0.07)
        half = 0.88 * head if not in_front else 0.8 * head
        self.canvas.box(-half, half, 0.85 * head, bottom, self.wardrobe.hair)

    def _face(self, centre: Point) -> None:
        head = self.person.head
        for side in (-1, 1):
            eye = (centre[0] + (side * 0.3 + 0.35 * self.slide) * head, centre[1] + 0.05 * head)
            self.canvas.ellipse(eye, (0.13 * head, 0.1 * head), self.wardrobe.hair * 0.6)

    def _hat(self, centre: Point) -> None:
        hat, head, colour = self.person.hat, self.person.head, self.wardrobe.hat
        if hat == "none":
            return
        self._hat_dome(centre, down_to=0.78 if hat == "beanie" else 0.66)
        if hat == "cap" and not self.pose.from_behind:
            shift = 0.5 * self.slide * head
            self.canvas.ellipse((centre[0] + shift, 0.72 * head), (0.95 * head, 0.2 * head), colour * 0.85)
        if hat == "brim":
            self.canvas.ellipse((centre[0], 0.68 * head), (1.55 * head, 0.24 * head), colour)

    def _hat_dome(self, centre: Point, *, down_to: float) -> None:
        head = self.person.head
        window = self.canvas.window(centre[0] - head, centre[0] + head, -0.15 * head, down_to * head)
        if window.is_empty:
            return
        reach = np.hypot((window.x - centre[0]) / (0.92 * head), (window.y - centre[1]) / (1.22 * head))
        distance = np.minimum((1.0 - reach) * head, down_to * head - window.y)
        self.canvas.paint(window, self.canvas.coverage(distance), self.wardrobe.hat)

    # bags ------------------------------------------------------------------------------------------------------

    def _backpack(self) -> None:
        size = self.person.bag_size
        centre = -0.6 * self.shoulder * self.slide
        half = 0.78 * self.shoulder * size if self.pose.from_behind else 1.12 * self.shoulder
        top, bottom = self.shoulder_y + 0.005, self.shoulder_y + 0.21 * size
        window = self.canvas.window(centre - half, centre + half, top, bottom)
        if window.is_empty:
            return
        distance = box_distance(window, centre - half, centre + half, top, bottom)
        shade = self._shade((window.x - centre) / half, (window.y - top) / (bottom - top))
        self.canvas.paint(window, self.canvas.coverage(distance), self.wardrobe.bag * shade)

    def _straps(self) -> None:
        y0, y1 = self.shoulder_y, self.shoulder_y + 0.17 * self.person.bag_size
        for side in (-1, 1):
            x = side * 0.58 * self.shoulder + 0.2 * self.slide * self.shoulder
            self.canvas.stroke((x * 0.8, y0), (x, y1), 0.013, self.wardrobe.bag)

    def _carried_bag(self) -> None:
        person, colour = self.person, self.wardrobe.bag
        side = person.bag_side * self.mirror
        size = person.bag_size
        if person.bag == "sling":
            x, y = side * (self.hip + 0.01), self.hip_y + 0.015
            self.canvas.stroke((-side * 0.7 * self.shoulder, self.shoulder_y), (x, y), 0.011, colour)
            self._pouch(x, y, 0.048 * size, 0.055 * size)
        elif person.bag == "hand":
            x, y = self._hand(side)
            self._pouch(x, y + 0.06 * size, 0.05 * size, 0.05 * size)
        elif person.bag == "tote":
            x = side * (self.shoulder + 0.02)
            self.canvas.stroke((side * self.shoulder * 0.8, self.shoulder_y), (x, self.hip_y - 0.08), 0.009, colour)
            self._pouch(x, self.hip_y - 0.01, 0.045 * size, 0.085 * size)

    def _pouch(self, x: float, y: float, half_width: float, half_height: float) -> None:
        self.canvas.box(x - half_width, x + half_width, y - half_height, y + half_height, self.wardrobe.bag)
