"""Codes of labels: their meanings and categories are those of DICOM's dictionary, and what is in neither is refused."""

import pytest

from lib.exchange.property_codes import TISSUE, category, code_text, property_code


@pytest.mark.parametrize(
    ("text", "meaning", "of_category"),
    [
        ("SCT:52988006", "Lesion", "Morphologically Abnormal Structure"),
        ("SCT:4147007", "Mass", "Morphologically Abnormal Structure"),
        ("SCT:10200004", "Liver", "Anatomical Structure"),
        ("SCT:85756007", "Tissue", "Tissue"),
        ("99LOCAL:A.7-b:Region of the reader", "Region of the reader", "Tissue"),
        ("SCT:10200004:Own words", "Own words", "Anatomical Structure"),
    ],
)
def test_code_has_a_meaning_and_a_category(text, meaning, of_category):
    code = property_code(text)

    assert code.meaning == meaning
    assert category(code).meaning == of_category
    assert property_code(code_text(code)) == code


@pytest.mark.parametrize(
    "text",
    ["", "SCT", "SCT:", ":52988006", "SCT 52988006", "SCT:5298800612345678901", "SCT:1:a:b", "SCT:1:a\\b", "S-T:1:a"],
)
def test_other_forms_are_refused_with_the_one_expected(text):
    with pytest.raises(ValueError, match="expected SCHEME:VALUE, such as SCT:52988006"):
        property_code(text)


def test_code_of_no_known_meaning_is_refused_with_the_remedy():
    with pytest.raises(ValueError, match="correct it, or give SCT:52988007:MEANING"):
        property_code("SCT:52988007")


def test_default_is_tissue():
    assert category(TISSUE) == TISSUE
