"""How small a difference n paired items can show, and how many items a difference needs."""

from __future__ import annotations

import math

from scipy import optimize, stats

from tunescope.errors import InputError

POWER, LEVEL = 0.8, 0.05
MOST = 10**12  # items; a plan that needs more is no plan
_NONE = 1e-12  # noncentrality of F that adds nothing to the level; scipy's sum goes wrong at 0


def paired_power(effect: float, *, sd: float, n: int, level: float = LEVEL) -> float:
    """Chance that a two-sided paired t test of n items finds a true mean difference `effect`, the differences having `sd`.

    P(|t′| > t_{1−level/2, n−1}), t′ noncentral with n − 1 degrees of freedom and noncentrality effect·√n/sd.

    Raises: InputError for an sd, n or level that is out of range.
    """
    _check(sd=sd, level=level)
    _check_count(n)
    if not math.isfinite(effect):
        raise InputError(f"effect {effect} asked for; give a finite difference")
    return _power(abs(effect) * math.sqrt(n) / sd, n - 1, level)


def detectable_effect(*, sd: float, n: int, power: float = POWER, level: float = LEVEL) -> float:
    """The smallest true mean difference that n paired items show with this power (two-sided), in the units of sd.

    Raises: InputError for a number out of range.
    """
    _check(sd=sd, power=power, level=level)
    _check_count(n)
    return _noncentrality(n - 1, power, level) * sd / math.sqrt(n)


def paired_sample_size(effect: float, *, sd: float, power: float = POWER, level: float = LEVEL) -> int:
    """The fewest paired items that show a true mean difference `effect` with this power (two-sided).

    Raises: InputError for an effect of 0 or another number out of range.
    """
    _check(effect=effect, sd=sd, power=power, level=level)
    return _fewest(lambda n: paired_power(effect, sd=sd, n=n, level=level) >= power, at_least=2)


def discordant_power(effect: float, *, discordance: float, n: int, level: float = LEVEL) -> float:
    """Chance that McNemar's test (two-sided, normal approximation) finds a true difference `effect` of two paired proportions.

    Φ((|effect|·√n − z√ψ) / √(ψ − effect²)), ψ the discordance: the share of items right on one side only. The exact test finds a little
    less where few items are discordant.

    Raises: InputError for |effect| above the discordance, or a number out of range.

    Reference: Connor 1987, Sample size for testing differences in proportions for the paired-sample design
    (https://doi.org/10.2307/2531961).
    """
    _check_discordance(effect, discordance)
    _check(level=level)
    _check_count(n)
    spare = discordance - effect**2
    ahead = abs(effect) * math.sqrt(n) - float(stats.norm.ppf(1 - level / 2)) * math.sqrt(discordance)
    return float(stats.norm.cdf(ahead / math.sqrt(spare))) if spare > 0 else float(ahead > 0)


def discordant_sample_size(effect: float, *, discordance: float, power: float = POWER, level: float = LEVEL) -> int:
    """The fewest items on which McNemar's test shows a true difference `effect` with this power; see `discordant_power`.

    Raises: InputError for an effect of 0, |effect| above the discordance, or a number out of range.
    """
    _check(effect=effect, power=power, level=level)
    _check_discordance(effect, discordance)
    return _fewest(lambda n: discordant_power(effect, discordance=discordance, n=n, level=level) >= power, at_least=2)


def _power(noncentrality: float, df: int, level: float) -> float:
    """Both tails at once: t′² is noncentral F, whose sum stays finite where scipy's noncentral t returns NaN."""
    if noncentrality**2 < _NONE:
        return level
    edge = stats.t.ppf(1 - level / 2, df)
    return float(stats.ncf.sf(edge**2, 1, df, noncentrality**2))


def _noncentrality(df: int, power: float, level: float) -> float:
    if power <= level:
        raise InputError(f"power {power:g} asked for at level {level:g}; a test that looks at nothing has that: ask for more")
    upper = 1.0
    while _power(upper, df, level) < power:
        upper *= 2
    return float(optimize.brentq(lambda x: _power(x, df, level) - power, 0, upper, xtol=1e-10))


def _fewest(enough, *, at_least: int) -> int:
    """The smallest n at which `enough(n)` holds, which stays true from there on. Raises InputError beyond MOST."""
    high = at_least
    while not enough(high):
        high *= 2
        if high > MOST:
            raise InputError(f"more than {MOST:.0e} items would be needed; ask for a larger effect")
    low = max(at_least - 1, high // 2)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _check(**numbers: float) -> None:
    for name, value in numbers.items():
        if name == "effect" and (value == 0 or not math.isfinite(value)):
            raise InputError(f"effect {value:g} asked for; give a difference other than 0, such as .01")
        if name == "sd" and not (value > 0 and math.isfinite(value)):
            raise InputError(f"sd {value:g} given; the standard deviation of the differences is a number above 0")
        if name in ("power", "level") and not 0 < value < 1:
            raise InputError(f"{name} {value:g} asked for; give a number between 0 and 1, such as {POWER if name == 'power' else LEVEL:g}")


def _check_count(n: int) -> None:
    if n < 2:
        raise InputError(f"n {n} given; a paired test needs at least 2 items")


def _check_discordance(effect: float, discordance: float) -> None:
    if not abs(effect) <= discordance <= 1 or discordance <= 0:
        raise InputError(
            f"effect {effect:g} with discordance {discordance:g}: the share of items right on one side only lies between the effect and 1"
        )
