"""The rule by which an image counts as annotated: every label of the app is answered."""

from hypothesis import given
from hypothesis import strategies as st

from lib.annotations.completeness import unanswered_labels

NAMES = st.lists(st.sampled_from(["lesion", "cyst", "vessel", "bone"]), unique=True)


@given(labels=NAMES, in_store=NAMES, in_final_mask=NAMES)
def test_label_is_unanswered_where_neither_the_store_nor_the_final_mask_answers_it(labels, in_store, in_final_mask):
    unanswered = unanswered_labels(labels, in_store, in_final_mask)

    assert set(unanswered) == set(labels) - set(in_store) - set(in_final_mask)
    assert [label for label in labels if label in unanswered] == list(unanswered)
