"""Sums on tensor cores: the fragments of mma.sync as PTX documents them, and what the additions may lose.

No GPU is needed: the layout is emulated with indices of its own, and the additions by the model that
``tensor_sums.cuh`` counts on, in exact integers.
"""

from __future__ import annotations

import re
from math import frexp
from pathlib import Path

import numpy as np
import pytest

HEADER = Path(__file__).resolve().parent.parent / "csrc" / "cuda" / "tensor_sums.cuh"
BOUND = 1e-6  # of the sum of magnitudes
ROUNDINGS = 7  # of float32, between the 8 groups of an octet
# terms of an mma, those that the hardware adds at a time, bits it keeps below float32
SHIPPED = [(8, 8, 1), (16, 16, 2)]


def words(rng, n):
    """Any finite bfloat16 values, as float64: two a word, a word for each of 32 lanes, n of them."""
    bits = rng.integers(0, 1 << 16, (n, 32, 2), dtype=np.uint32)
    bits = np.where(bits & 0x7F80 == 0x7F80, bits & 0x80FF | 0x3F00, bits)
    return (bits << 16).astype(np.uint32).view(np.float32).astype(np.float64)


def matrix_a(fragment):
    """16 rows: register i of lane 4g + t has row g, or g + 8 if i is odd, columns 2t, 2t + 1 (+ 8 from 2)."""
    a = np.full((16, 4 * len(fragment)), np.nan)
    for i, register in enumerate(fragment):
        for lane in range(32):
            for half in range(2):
                a[lane // 4 + 8 * (i % 2), 2 * (lane % 4) + half + 8 * (i // 2)] = register[lane, half]
    return a


def matrix_b(fragment):
    """8 columns: register i of lane 4g + t has column g, rows 2t and 2t + 1, and 8 more for i = 1."""
    b = np.full((8 * len(fragment), 8), np.nan)
    for i, register in enumerate(fragment):
        for lane in range(32):
            for half in range(2):
                b[2 * (lane % 4) + half + 8 * i, lane // 4] = register[lane, half]
    return b


def accumulators(d):
    """Of 32 lanes: c0 and c1 of lane 4g + t have row g, columns 2t and 2t + 1; c2 and c3 row g + 8."""
    return np.array(
        [[d[lane // 4 + 8 * (i // 2), 2 * (lane % 4) + i % 2] for i in range(4)] for lane in range(32)]
    )


def taken(group, terms):
    """What each lane hands on of a group, as TensorSums takes it."""
    ones = np.ones((32, 2))
    if terms == 16:
        c = accumulators(matrix_a(group) @ matrix_b([ones, ones]))
        return [c[lane, 2 if lane & 1 else 0] if lane & 2 == 0 else 0.0 for lane in range(32)]
    c = [accumulators(matrix_a(pair) @ matrix_b([ones])) for pair in (group[:2], group[2:])]
    return [c[lane >> 1 & 1][lane, 2 if lane & 1 else 0] for lane in range(32)]


@pytest.mark.parametrize("terms", [8, 16])
def test_lanes_hand_on_every_value_once(terms):
    """Each value by itself: a power of two of its own bit, in all 256 places."""
    for place in range(256):
        group = np.zeros((4, 32, 2))
        group.reshape(-1)[place] = 1.0
        assert sum(taken(group, terms)) == 1.0, place


@pytest.mark.parametrize("terms", [8, 16])
def test_lanes_hand_on_sums_of_any_words(terms):
    rng = np.random.default_rng(3)
    for _ in range(20):
        group = np.ldexp(
            np.round(np.ldexp(np.fmod(words(rng, 4), 1.0), 7)), -7
        )  # so that float64 sums them exactly
        assert sum(taken(group, terms)) == group.sum()


def test_products_with_ones_and_squares_are_exact_in_float32():
    """8 by 8 significant bits: exact wherever neither end of the range is met."""
    x = words(np.random.default_rng(4), 200)
    x = x[(np.abs(x) > 2.0**-50) & (np.abs(x) < 2.0**50)]
    assert np.array_equal((x * x).astype(np.float32).astype(np.float64), x * x)
    assert np.array_equal(x.astype(np.float32).astype(np.float64), x)


def test_squares_lie_on_the_diagonal():
    """What is not shipped: S2 needs two of four accumulators, of which lanes have different ones."""
    group = np.fmod(words(np.random.default_rng(5), 4), 1.0)
    d = matrix_a(group) @ matrix_b(group[[0, 2]])
    c = accumulators(d)
    mine = [c[lane, lane // 4 % 2] for lane in range(32) if lane // 8 == lane % 4]
    assert len(mine) == 8
    assert np.isclose(sum(mine), (group[[0, 2]] ** 2).sum(), rtol=1e-13)


def cut(x, exponent):
    """x without what lies below 2^exponent, towards zero."""
    return np.trunc(np.ldexp(x, -exponent)) * 2.0**exponent


def block_sum(addends, extra):
    """The model: all addends are cut off against the largest of them, and the sum to float32."""
    largest = np.max(np.abs(addends))
    if largest == 0:
        return 0.0
    aligned = cut(addends, frexp(largest)[1] - 24 - extra)
    total = float(np.sum(aligned))
    return float(cut(total, frexp(total)[1] - 24))


def chain(values, terms, block, extra):
    """S1 of one row of 8 mma, each of a fresh accumulator, added in float32."""
    total = np.float32(0)
    for first in range(0, len(values), terms):
        sum_ = 0.0
        for at in range(first, first + terms, block):
            sum_ = block_sum(np.append(values[at : at + block], sum_), extra)
        total += np.float32(sum_)
    return float(total)


def adverse(terms, rng):
    """Values of 8 significant bits of which a block loses as much as it can."""
    x = np.full(8 * terms, 2.0**-23 * (1 - 2.0**-8))
    x *= 2.0 ** -rng.integers(0, 4, x.size)
    x[rng.integers(0, terms)] = 1.0
    return x


def worst(terms, block, extra):
    rng = np.random.default_rng(6)
    found = 0.0
    for i in range(400):
        x = adverse(terms, rng) if i % 2 else np.fmod(words(rng, 1).reshape(-1)[: 4 * terms], 1.0)
        x = np.resize(x, 8 * terms)
        found = max(found, abs(chain(x, terms, block, extra) - x.sum()) / np.abs(x).sum())
    return found


def bound(terms, block, extra):
    """Of one mma and of the roundings after it, in units of the sum of magnitudes."""
    grid = 2.0 ** -(23 + extra)
    blocks = terms // block
    lost = (
        blocks * block - 1
    ) * grid  # of all but the largest; from the second block on the accumulator is one more
    return lost + blocks * (2.0**-23 - grid) + ROUNDINGS * 2.0**-24


@pytest.mark.parametrize(("terms", "block", "extra"), SHIPPED)
def test_what_is_shipped_keeps_the_bound(terms, block, extra):
    assert bound(terms, block, extra) <= BOUND
    found = worst(terms, block, extra)
    assert 0 < found <= bound(terms, block, extra)


def test_what_is_not_shipped_does_not():
    """16 terms where 8 are added at a time; and, at 64 mma to an accumulator, losses that no bound allows."""
    assert bound(16, 8, 1) > BOUND
    sum_ = 1.0
    for _ in range(64):
        sum_ = block_sum(np.append(np.full(16, 2.0**-25 * (1 - 2.0**-8)), sum_), 1)
    assert 1 + 64 * 16 * 2.0**-25 * (1 - 2.0**-8) - sum_ > 10 * BOUND


def test_the_header_ships_what_is_tested_here():
    text = HEADER.read_text(encoding="utf-8")
    assert re.search(r"tensor_terms\(int architecture\) \{ return architecture >= 900 \? 16 : 8; \}", text)
    assert re.search(r"#else\s+static_cast<void>\(architecture\);\s+return false;", text)  # off everywhere
    assert set(re.findall(r"mma\.sync\.aligned\.(m16n8k\d+)", text)) == {"m16n8k8", "m16n8k16"}
    assert text.count("{%9,%9,%9,%9}") == text.count("{%7,%7,%7,%7}") == 1  # accumulators begin at 0
