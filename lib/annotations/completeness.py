"""Decide whether an image is annotated: every label of the app has an annotation."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def unanswered_labels(
    labels: Sequence[str], in_store: Collection[str], in_final_mask: Collection[str]
) -> tuple[str, ...]:
    """Return the labels of the app without annotation in an image; an image without any is annotated.

    Args:
        labels: of the app.
        in_store: labels that were clicked or marked absent (`AnnotationStore`).
        in_final_mask: labels that the final mask covers (`MaskRecord.labels`).
    """
    return tuple(label for label in labels if label not in in_store and label not in in_final_mask)
