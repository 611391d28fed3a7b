"""Language, token by token: the losses, both divergences, and the tokens and texts where base and tuned differ most, in context."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tunescope.report import reading
from tunescope.report.numbers import amount, count, interval, percent, signed, three

FIRST = 4  # tokens and texts shown at once; the others fold away
_HEADS = {"masked": "masked-token", "causal": "next-token"}
_BLANKS = {" ": "␣", "\n": "⏎", "\t": "⇥", "\r": "⏎"}


def view(payload: reading.Payload) -> list[dict[str, Any]]:
    """What the page prints of each language task."""
    return [_view(found) for found in payload.get("outcome_details") or [] if found.get("kind") == "language"]


def _view(found: dict[str, Any]) -> dict[str, Any]:
    tokens = [_token(row) for row in found.get("most_changed_tokens") or []]
    texts = [_text(row) for row in found.get("most_changed_texts") or []]
    head = _HEADS.get(str(found.get("head")), "token")
    return {
        "name": found.get("name") or "language",
        "facts": _facts(found),
        "first": FIRST,
        "many": len(tokens) > FIRST,
        "lead": f"The same {count(found.get('tokens'))} tokens of {count(found.get('texts'))} texts through both: {head} prediction.",
        "tokens": tokens,
        "texts": texts,
        "notes": [str(said).rstrip(".") for said in found.get("notes") or []],
        "legend": "Marked: the predicted token. Beside it, its loss under each model and the three tokens each would have said.",
    }


def _facts(found: dict[str, Any]) -> list[dict[str, str]]:
    """Losses as the two models can be compared, then what only the same tokens allow: perplexity, KL both ways, agreement."""
    bits = found.get("unit") == "bits per byte"
    rows = [_pair(found, "bits_per_byte", "bits per byte")] if bits else [_pair(found, "loss", "loss, nats a token"),
                                                                          _pair(found, "perplexity", "perplexity")]  # fmt: skip
    if found.get("kl") is not None:
        reverse = f"; KL(tuned ‖ base) {three(found.get('kl_reverse'))}"
        rows.append((three(found["kl"]), f"KL(base ‖ tuned), nats a token{_near(found, 'kl', interval)}{reverse}"))
    if found.get("agreement") is not None:
        rows.append((percent(found["agreement"]), f"same first guess{_near(found, 'agreement', _percents)}"))
    return [{"value": value, "label": label} for value, label in rows]


def _pair(found: dict[str, Any], key: str, label: str) -> tuple[str, str]:
    return f"{amount(found.get(f'base_{key}'))} → {amount(found.get(f'tuned_{key}'))}", label


def _near(found: dict[str, Any], key: str, say: Callable[[float, float], str]) -> str:
    low, high = found.get(f"{key}_interval") or (None, None)
    return "" if low is None or high is None else f", 95% {say(low, high)}"


def _percents(low: float, high: float) -> str:
    return f"[{percent(low)}, {percent(high)}]"


def _token(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "text_id": str(row.get("text_id", "")), "before": str(row.get("before") or ""), "token": visible(str(row.get("token") or "")),
        "after": str(row.get("after") or ""), "kl": three(row.get("kl")),
        "sides": [
            {"name": side, "loss": amount(row.get(f"{side}_loss")),
             "top": [{"token": visible(str(token)), "share": percent(share)} for token, share in row.get(f"{side}_top") or []]}
            for side in ("base", "tuned")
        ],
    }  # fmt: skip


def visible(token: str) -> str:
    """A token with its blanks drawn where it is nothing else: "␣" for a space, "⏎" for a line's end."""
    return token if token.strip() else "".join(_BLANKS.get(char, char) for char in token) or "∅"


def _text(row: dict[str, Any]) -> dict[str, str]:
    said = f"loss {amount(row.get('base'))} → {amount(row.get('tuned'))} ({signed(row.get('delta'))})"
    return {"id": str(row.get("id", "")), "text": str(row.get("text") or ""),
            "said": said + (f", KL {three(row['kl'])}" if row.get("kl") is not None else "")}  # fmt: skip
