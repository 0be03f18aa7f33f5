"""Scores, text, embeddings and plain tensors in numbers; and every family bears every value."""

from __future__ import annotations

import unicodedata
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeml.statistics.families import FAMILIES, Context

LOGITS, SHARES = Context(classes=3), Context(classes=3, probabilities=True)
ODD = [0.0, 1.0, -1.0, np.nan, np.inf, -np.inf, 1e300, -1e300, 5e-324]


def computed(family: str, batch, context=None):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = FAMILIES[family].compute(np.asarray(batch), context or Context(), None)
    assert found.shape == (len(batch), len(FAMILIES[family].names(context or Context())))
    return found


def test_scores_tell_the_class_how_sure_and_how_much_surer_than_of_the_next():
    decided, confidence, entropy, margin = computed("scores", [[0.1, 0.7, 0.2]], SHARES)[0]
    assert (decided, confidence) == (1, 0.7)
    assert margin == pytest.approx(0.5)
    assert entropy == pytest.approx(0.73, abs=0.01)


@pytest.mark.parametrize("shift", [0, 1000, -1000])
def test_logits_become_shares_wherever_they_lie(shift):
    uniform = computed("scores", [[shift, shift, shift]], LOGITS)[0]
    assert uniform[1:].tolist() == pytest.approx([1 / 3, 1, 0])


def test_broken_scores_have_no_class_and_no_confidence():
    assert np.isnan(computed("scores", [[0.1, np.nan, 0.2]], SHARES)).all()


@pytest.mark.parametrize(
    ("text", "length", "shares"),
    [
        ("abc", 3, [1, 0, 0, 0, 0]),
        ("Straße 12", 9, [6 / 9, 2 / 9, 1 / 9, 0, 0]),
        ("東京", 2, [1, 0, 0, 0, 0]),
        ("3,50 €", 6, [0, 3 / 6, 1 / 6, 2 / 6, 0]),
        ("\ufffd\x00", 2, [0, 0, 0, 0, 1]),
        ("क्षि", 4, [1, 0, 0, 0, 0]),
    ],
)
def test_text_is_a_length_and_shares_of_its_characters(text, length, shares):
    assert computed("text", np.array([text], dtype=object))[0].tolist() == pytest.approx(
        [length, *shares]
    )


def test_an_empty_text_has_a_length_and_a_missing_one_has_none():
    empty, missing, gap = computed("text", np.array(["", None, float("nan")], dtype=object))
    assert empty[0] == 0
    assert np.isnan(empty[1:]).all()
    assert np.isnan(missing).all()
    assert np.isnan(gap).all()


def test_bytes_are_read_as_utf8_and_what_is_none_shows():
    good, bad = computed("text", np.array(["äöü".encode(), "äöü".encode("latin-1")], dtype=object))
    assert good[1] == 1
    assert bad[-1] == 1


@given(st.lists(st.text(), min_size=1, max_size=5))
def test_the_shares_of_a_text_add_up_to_one(texts):
    for text, (length, *shares) in zip(
        texts, computed("text", np.array([*texts], dtype=object)), strict=True
    ):
        assert length == len(text)
        if text:
            assert sum(shares) == pytest.approx(1)


@given(st.characters())
def test_every_letter_counts_as_one_whatever_its_script(character):
    letters = computed("text", np.array([character], dtype=object))[0][1]
    assert (letters == 1) == (character.isalpha() or unicodedata.category(character)[0] == "M")


def test_an_embedding_is_its_norm_its_mean_and_itself():
    batch = np.array([[3.0, 4.0], [0.0, 0.0]])
    assert computed("embedding", batch).tolist() == [[5, 3.5], [0, 0]]
    np.testing.assert_array_equal(FAMILIES["embedding"].vectors(batch, Context())["vector"], batch)


@given(
    st.sampled_from(["scores", "embedding", "tensor", "features"]),
    st.lists(st.sampled_from(ODD), min_size=3, max_size=3),
    st.booleans(),
)
def test_any_numbers_are_borne(family, values, probabilities):
    context = Context(classes=3, columns=("a", "b", "c"), probabilities=probabilities)
    batch = np.array([values, values])
    computed(family, batch, context)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        FAMILIES[family].vectors(batch, context)


@pytest.mark.parametrize("family", ["embedding", "tensor", "scores"])
def test_a_sample_without_numbers_is_missing(family):
    assert np.isnan(computed(family, np.zeros((2, 0)))).all()
