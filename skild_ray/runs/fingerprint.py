"""What a result was made from, as a short text."""

import hashlib
import json

from pydantic import BaseModel


def fingerprint(*parts: object) -> str:
    """Short SHA-256 of JSON-able values or sections: equal exactly where everything that went in is equal."""
    plain = [part.model_dump(mode="json") if isinstance(part, BaseModel) else part for part in parts]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]
