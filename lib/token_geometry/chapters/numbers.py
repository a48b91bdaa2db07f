"""How the chapters spell numbers: one minus sign, one percent sign, one form of an interval, one of a count."""

import numpy as np
import xarray as xr

# Powers of ten are spelled without markup, since alt texts have none.
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


class Number(float):
    """A number that sentences format as a reader expects it: `−1.5`, `40%`, `2 × 10⁻⁷`."""

    def __format__(self, spec: str) -> str:
        mantissa, _, exponent = super().__format__(spec).partition("e")
        if exponent:
            power = "10" + str(int(exponent)).translate(_SUPERSCRIPTS)
            mantissa = "0" if not self else power if mantissa == "1" else f"{mantissa} × {power}"
        return mantissa.replace("-", "−")


def interval(low: float, high: float, spec: str) -> str:
    """The ends of an interval, or of a range: `−0.2 to 0.5`."""
    return f"{Number(low):{spec}} to {Number(high):{spec}}"


def estimate(value: float, low: float, high: float, *, sign="", digits=None, name="", spec="") -> str:
    """A number and its interval in brackets, if it has one.

    `sign` is `+` for a difference, `digits` are those behind the point, by default two, and more where the
    number is small, or `spec` says both; `name` says what is in the brackets."""
    if digits is None:
        digits = 2 if abs(value) >= 0.1 or value == 0 else 3 if abs(value) >= 0.01 else 4
    spec = spec or f"{sign}.{digits}f"
    text = f"{Number(value):{spec}}"
    return f"{text} ({name}{interval(low, high, spec)})" if np.isfinite(low) else text


def told(found: xr.Dataset, value: str = "mean", *, sign: str = "", digits: int | None = 2, name: str = "") -> str:
    """The variable `value` of a data set and the interval in `low` and `high`, as of `estimate`."""
    return estimate(*(float(found[part]) for part in (value, "low", "high")), sign=sign, digits=digits, name=name)


def count(number: int, noun: str) -> str:
    """`1 prompt`, `2 prompts`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def seconds(value: float) -> str:
    """Seconds with two digits, and with more from ten on."""
    return f"{value:.2f}" if value >= 1 else f"{Number(value):.2g}"


def short(number: float) -> str:
    """A number of any size with three digits, or all before the point up to a million."""
    return f"{Number(number):{'.0f' if 100 <= abs(number) < 1e6 else '.3g'}}"


def span(values, spec: str = ".0f") -> str:
    """The numbers of an array from the smallest to the largest: `5 to 9`, or `5` where both read alike."""
    low, high = (f"{Number(end):{spec}}" for end in (values.min(), values.max()))
    return low if low == high else f"{low} to {high}"


def layers(found: np.ndarray | slice) -> str:
    """Layers as ranges: `layers 2 to 10 and 25 to 30`, or `layer 2`; those of a slice with its stop."""
    found = np.arange(found.start, found.stop + 1) if isinstance(found, slice) else found
    if not found.size:
        return "none"
    spelled = [span(run) for run in np.split(found, np.flatnonzero(np.diff(found) > 1) + 1)]
    text = " and ".join(filter(None, [", ".join(spelled[:-1]), spelled[-1]]))
    return f"{'layer' if found.size == 1 else 'layers'} {text}"
