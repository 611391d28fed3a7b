"""What a report says of a study: rows of a ledger → one JSON-able payload, every figure from `study.analyses`."""

from tunescope.study.reporting.payload import SCHEMA, study_payload

__all__ = ["SCHEMA", "study_payload"]
