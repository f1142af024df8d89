"""Colours that stand in one picture are told apart by everybody.

Colour blindness is simulated as in Machado, Oliveira and Fernandes 2009 (matrices of severity 1.0);
differences are CIE76 and CIEDE2000 (Sharma, Wu and Dalal 2005, whose test pairs are held too).
"""

from itertools import combinations

import numpy as np
import pytest

from npu_sim.evidence import plots
from npu_sim.roofline.formula import LIMITS
from npu_sim.show import figure, gantt, pictures
from npu_sim.tile.tasks import PARTS

LEAST = 15
EYES = {
    "trichromat": np.eye(3),
    "protanope": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                  [-0.003882, -0.048116, 1.051998]],
    "deuteranope": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                    [-0.011820, 0.042940, 0.968881]],
    "tritanope": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
                  [0.004733, 0.691367, 0.303900]],
}  # fmt: skip
XYZ = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
       [0.0193339, 0.1191920, 0.9503041]]  # fmt: skip


def lab(colour: str, eye: str) -> np.ndarray:
    """CIE L*a*b* (D65) of a colour as an eye sees it."""
    rgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.asarray(EYES[eye]) @ linear, 0, 1)
    x = np.asarray(XYZ) @ seen / [0.95047, 1, 1.08883]
    f = np.where(x > (6 / 29) ** 3, np.cbrt(x), x / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def cie76(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b))


def ciede2000(first: np.ndarray, second: np.ndarray) -> float:
    (l1, a1, b1), (l2, a2, b2) = first, second
    mean = (np.hypot(a1, b1) + np.hypot(a2, b2)) / 2
    g = 1 + 0.5 * (1 - np.sqrt(mean**7 / (mean**7 + 25.0**7)))
    c1, c2 = np.hypot(g * a1, b1), np.hypot(g * a2, b2)
    h1, h2 = (np.degrees(np.arctan2(b, g * a)) % 360 for a, b in ((a1, b1), (a2, b2)))
    dh = 0 if c1 * c2 == 0 else (h2 - h1 + 180) % 360 - 180
    h = h1 + h2 if c1 * c2 == 0 else (h1 + dh / 2) % 360
    big = 2 * np.sqrt(c1 * c2) * np.sin(np.radians(dh / 2))
    light, c = (l1 + l2) / 2 - 50, (c1 + c2) / 2

    def cos(degrees: float) -> float:
        return np.cos(np.radians(degrees))

    t = 1 - 0.17 * cos(h - 30) + 0.24 * cos(2 * h) + 0.32 * cos(3 * h + 6) - 0.2 * cos(4 * h - 63)
    sl, sc, sh = 1 + 0.015 * light**2 / np.sqrt(20 + light**2), 1 + 0.045 * c, 1 + 0.015 * c * t
    turn = -2 * np.sqrt(c**7 / (c**7 + 25.0**7)) * np.sin(
        np.radians(60 * np.exp(-(((h - 275) / 25) ** 2))))  # fmt: skip
    dl, dc, dn = (l2 - l1) / sl, (c2 - c1) / sc, big / sh
    return float(np.sqrt(dl**2 + dc**2 + dn**2 + turn * dc * dn))


def closest(colours) -> float:
    """The smallest difference of two of them, for any eye and in either measure."""
    return min(
        measure(lab(a, eye), lab(b, eye))
        for a, b in combinations(colours, 2) for eye in EYES for measure in (cie76, ciede2000)
    )  # fmt: skip


PICTURES = {
    "palette": figure.PALETTE,
    "lines": figure.LINES,
    "gantt": tuple(gantt.COLOURS.values()),
    "limits": pictures.LIMIT_COLOURS,
    "validation": (*plots.COLOURS.values(), figure.GREY),
    "what-ifs": (figure.BLUE, figure.ORANGE, figure.GREY, figure.GREEN),
}


@pytest.mark.parametrize("picture", PICTURES)
def test_colours_of_one_picture_are_told_apart_by_everybody(picture):
    assert closest(PICTURES[picture]) >= LEAST


def test_lines_and_bars_are_told_from_white_paper():
    assert all(closest((colour, "#ffffff")) >= 9 for colour in figure.PALETTE)


def test_every_part_and_limit_has_a_colour_of_its_own():
    assert set(gantt.COLOURS) == set(PARTS)
    assert len(set(gantt.COLOURS.values())) == len(PARTS)
    assert len(set(pictures.LIMIT_COLOURS)) == len(LIMITS)


def test_colours_that_were_too_close_are_noticed():
    """Weights and unpacking as they were: 4.9 apart for a protanope."""
    protan = [lab(colour, "protanope") for colour in ("#2f6db3", "#8d5fa8")]
    assert cie76(*protan) == pytest.approx(4.9, abs=0.05)
    assert closest(("#2f6db3", "#8d5fa8")) < LEAST


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [  # pairs 1, 7 and 17 of Sharma, Wu and Dalal
        ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
        ((50, 0, 0), (50, -1, 2), 2.3669),
        ((50, 2.5, 0), (73, 25, -18), 27.1492),
    ],
)
def test_the_measure_is_that_of_its_paper(first, second, expected):
    found = ciede2000(np.array(first, float), np.array(second, float))
    assert found == pytest.approx(expected, abs=1e-4)
