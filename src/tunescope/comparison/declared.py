"""What its maker says of a tuning: recorded as said, never checked against the weights."""

from __future__ import annotations

from collections.abc import Mapping

from tunescope.errors import InputError, UnknownName

KEYS = ("objective", "corpus", "rule")


def declared(said: str | Mapping[str, str] | None) -> dict[str, str]:
    """A declaration of objective, corpus and update rule: a mapping, or "objective=mlm,corpus=wiki,rule=lora".

    Raises: UnknownName for another key, InputError for a part that is not key=value, an empty value or a key given twice.
    """
    if said is None:
        return {}
    pairs = list(said.items()) if isinstance(said, Mapping) else [_pair(part, said) for part in said.split(",")]
    found: dict[str, str] = {}
    for key, value in pairs:
        if key not in KEYS:
            raise UnknownName("declaration of the tuning", str(key), KEYS)
        if key in found:
            raise InputError(f"the tuning is declared with two values of {key}, '{found[key]}' and '{value}'; give one")
        if not isinstance(value, str) or not value.strip():
            raise InputError(f"the tuning is declared with {key} {value!r}; give it in words, or leave it out")
        found[key] = value.strip()
    return {key: found[key] for key in KEYS if key in found}


def _pair(part: str, said: str) -> tuple[str, str]:
    key, equals, value = part.partition("=")
    if not equals:
        raise InputError(f"'{said}' was given as what the tuning was; write it as key=value,key=value with {', '.join(KEYS)}")
    return key.strip(), value
