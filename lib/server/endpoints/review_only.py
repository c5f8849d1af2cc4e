"""Refuse requests that a review-only server does not serve."""

from __future__ import annotations

from fastapi import HTTPException
from monailabel.interfaces.utils.app import app_instance


def is_review_only() -> bool:
    """Tell whether the server was started with `--conf review true`."""
    return bool(app_instance().settings.review)


def refuse_if_review_only() -> None:
    """Raise HTTPException 409 if the server is for reviews only, and so has no model."""
    if is_review_only():
        raise HTTPException(
            409,
            "This server is for reviews only (--conf review true): it takes no clicks and has no model; ask one that "
            "was started without it.",
        )
