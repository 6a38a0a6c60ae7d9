"""Tail probabilities of the usual tests, from ``math`` alone; tests compare them with SciPy."""

from __future__ import annotations

import math
from collections.abc import Callable

_ROUNDS = 10_000
_PRECISION = 1e-15
_TINY = 1e-300


def chi_squared_tail(x: float, df: float) -> float:
    """P(X >= x) for X chi-squared with ``df`` degrees of freedom: the upper regularised incomplete gamma function.

    >>> round(chi_squared_tail(5.991465, 2), 4)
    0.05
    """
    if x <= 0:
        return 1.0
    a, z = df / 2, x / 2
    scale = math.exp(a * math.log(z) - z - math.lgamma(a))
    if z < a + 1:  # the series of the lower function converges fast here, the fraction of the upper one there
        term = total = 1 / a
        for n in range(1, _ROUNDS):
            term *= z / (a + n)
            total += term
            if term < total * _PRECISION:
                break
        return min(1.0, max(0.0, 1 - scale * total))
    return scale / _continued_fraction(lambda n: -n * (n - a), lambda n: z + 2 * n + 1 - a)


def f_tail(x: float, df1: float, df2: float) -> float:
    """P(X >= x) for X with an F distribution.

    >>> round(f_tail(4.256495, 2, 9), 4)
    0.05
    """
    return 1.0 if x <= 0 else _incomplete_beta(df2 / (df2 + df1 * x), df2 / 2, df1 / 2)


def t_two_sided(t: float, df: float) -> float:
    """P(abs(T) >= abs(t)) for Student's t.

    >>> round(t_two_sided(2.262157, 9), 4)
    0.05
    """
    return _incomplete_beta(df / (df + t * t), df / 2, 0.5)


def t_quantile(df: float, confidence: float = 0.95) -> float:
    """The t that P(abs(T) >= t) = 1 - ``confidence``; the normal quantile where ``df`` is infinite.

    >>> round(t_quantile(9), 3), round(t_quantile(math.inf), 3)
    (2.262, 1.96)
    """

    def two_sided(t: float) -> float:
        return math.erfc(t / math.sqrt(2)) if math.isinf(df) else t_two_sided(t, df)

    low, high = 0.0, 1.0
    while two_sided(high) > 1 - confidence:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if two_sided(middle) > 1 - confidence else (low, middle)
    return (low + high) / 2


def sign_test(a: int, b: int) -> float:
    """Exact two-sided p that ``a`` against ``b`` votes come from even odds.

    >>> sign_test(8, 2)
    0.109375
    """
    n = a + b
    tail = sum(math.comb(n, i) for i in range(min(a, b) + 1))
    return min(1.0, 2 * tail / 2**n)


def _incomplete_beta(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function I_x(a, b)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # the fraction converges fast on one side of the mean only
        return 1 - _incomplete_beta(1 - x, b, a)

    def numerator(n: int) -> float:
        m = n // 2
        if n % 2 == 0:
            return m * (b - m) * x / ((a + n - 1) * (a + n))
        return -(a + m) * (a + b + m) * x / ((a + n - 1) * (a + n))

    logarithm = a * math.log(x) + b * math.log1p(-x) + math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    return math.exp(logarithm) / a / _continued_fraction(numerator, lambda n: 1.0)


def _continued_fraction(numerator: Callable[[int], float], denominator: Callable[[int], float]) -> float:
    """The value d(0) + n(1) / (d(1) + n(2) / (d(2) + ...)), by the modified method of Lentz."""
    value = denominator(0) or _TINY
    c, d = value, 0.0
    for n in range(1, _ROUNDS):
        a, b = numerator(n), denominator(n)
        d = 1 / (b + a * d or _TINY)
        c = b + a / c or _TINY
        value *= c * d
        if abs(c * d - 1) < _PRECISION:
            break
    return value
