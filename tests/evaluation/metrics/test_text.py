"""Answer figures: published examples, formulas written another way, and tables run through the original evaluators."""

from functools import lru_cache
from itertools import combinations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from evaluation.metrics.text import (
    CONTRACTIONS,
    anls,
    choice,
    chosen_letter,
    contains,
    exact_match,
    normalized,
    relaxed_accuracy,
    textvqa_accuracy,
    vqa_accuracy,
)

EVERY = [anls, vqa_accuracy, textvqa_accuracy, relaxed_accuracy, exact_match, contains]
words = st.text("abé ", max_size=7)

# ---- ANLS ----


@pytest.mark.parametrize(
    ("prediction", "expected"), [("The Coca", 0), ("CocaCola", 0.89), ("Coca cola", 1), ("Cola", 0), ("Cat", 0)]
)
def test_anls_gives_the_example_of_the_robust_reading_competition(prediction, expected):
    assert anls(prediction, ["Coca Cola", "Coca Cola Company"]) == pytest.approx(expected, abs=0.005)


@given(words, st.lists(words, min_size=1, max_size=3))
@example("", [""])
def test_anls_follows_its_definition(prediction, answers):
    @lru_cache(None)
    def distance(a, b):
        if not a or not b:
            return len(a) + len(b)
        return min(distance(a[1:], b) + 1, distance(a, b[1:]) + 1, distance(a[1:], b[1:]) + (a[0] != b[0]))

    def similarity(a, b):
        return 1 - distance(a, b) / max(len(a), len(b)) if a or b else 1

    best = max(similarity(" ".join(prediction.split()), " ".join(answer.split())) for answer in answers)
    assert anls(prediction, answers) == pytest.approx(best if best >= 0.5 else 0)


def test_anls_counts_a_similarity_of_just_a_half():
    assert anls("abcd", ["abxy"]) == 0.5
    assert anls("abcd", ["axyz"]) == 0


def test_anls_ignores_case_and_the_amount_of_white_space_and_padding_does_not_help():
    assert anls("  ÉCOLE\n normale ", ["école normale"]) == 1
    assert anls("xyz" + " " * 100, ["abc"]) == 0


def test_anls_of_a_long_reply_to_a_short_question_is_zero_at_once():
    assert anls("because " * 100_000, ["red"]) == 0


# ---- VQAv2 and TextVQA ----


@pytest.mark.parametrize("accuracy", [vqa_accuracy, textvqa_accuracy])
@pytest.mark.parametrize(("agreeing", "expected"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (9, 1), (10, 1)])
def test_three_other_annotators_make_an_answer_right(accuracy, agreeing, expected):
    answers = ["red"] * agreeing + ["blue"] * (10 - agreeing)
    assert accuracy("red", answers) == pytest.approx(expected)


@pytest.mark.parametrize("accuracy", [vqa_accuracy, textvqa_accuracy])
@given(st.lists(st.sampled_from(["red", "blue", "green"]), min_size=2, max_size=10))
def test_accuracy_is_the_mean_over_all_but_one_of_the_annotators(accuracy, answers):
    groups = list(combinations(answers, len(answers) - 1))
    expected = sum(min(group.count("red") / 3, 1) for group in groups) / len(groups)
    assert accuracy("red", answers) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "expected"),  # run through the evaluation code of VQA
    [
        ("The Red  Cat", "red cat"),
        ("two dogs", "2 dogs"),
        ("None", "0"),
        ("a", ""),
        ("1,000", "1000"),
        ("1,000 (about)", "1000 about"),
        ("red,blue", "red blue"),
        ("red, blue", "red blue"),
        ("well-known / famous", "well known famous"),
        ("well-known", "well known"),
        ("3.5 kg.", "3.5 kg"),
        (".5", ".5"),
        ("U.S.A.", "usa"),
        ("dont", "don't"),
        ("couldnt've", "couldn't've"),
        ("Im", "im"),
        ("somebody'd", "somebodyd"),
        ("Dog's", "dog's"),
        ("“Café”!", "“café”"),
        ("5%", "5%"),
        ("what?\tno", "what no"),
        ("", ""),
        ("." * 40, "." * 8),
    ],
)
def test_answers_are_normalized_as_in_the_code_of_vqa(text, expected):
    assert normalized(text) == expected


def test_every_contraction_gets_its_apostrophe_back():
    assert all(normalized(full.replace("'", "", 1)) == full for full in CONTRACTIONS)


def test_where_annotators_agree_vqa_does_not_normalize_and_textvqa_does():
    assert vqa_accuracy("2", ["two"] * 10) == 0
    assert vqa_accuracy(" TWO\n", ["two"] * 10) == 1
    assert textvqa_accuracy("2", ["two"] * 10) == 1
    assert vqa_accuracy("2", ["two"] * 9 + ["three"]) == 1


@pytest.mark.parametrize(
    ("prediction", "answer", "same"),  # run through EvalAI's processor
    [
        ("Nike.", "nike", True),
        ("1,000", "1000", True),
        ("a,b", "ab", True),
        ("joe's", "joe 's", True),
        ("stop!", "STOP", True),
        ("the stop", "stop", True),
        ("10:30", "10 : 30", False),
        ("no smoking", "nosmoking", False),
        ("学校", "学校", True),
    ],
)
def test_textvqa_compares_as_its_evaluator_does(prediction, answer, same):
    assert textvqa_accuracy(prediction, [answer] * 10) == same


# ---- ChartQA ----


@pytest.mark.parametrize(
    ("prediction", "answer", "right"),
    [
        ("100", "100", True),
        ("105", "100", True),
        ("95", "100", True),
        ("105.1", "100", False),
        ("94.9", "100", False),
        ("-95", "-100", True),
        ("95", "-100", False),
        ("5%", "0.05", True),
        ("5%", "5", False),
        ("5 %", "5%", True),
        ("12.3%", "12%", True),
        ("1e2", "100", True),
        ("0", "0", True),
        ("0.0", "0", True),
        ("0%", "0", True),
        ("0.001", "0", False),
        ("Yes", "yes", True),
        ("yes.", "yes", False),
        ("1,000", "1000", False),
        ("1,000", "1,000", True),
        ("%", "%", True),
        ("nan", "5", False),
        ("inf", "5", False),
        ("Nan", "nan", True),
        ("inf", "inf", True),
        ("N/A", "n/a", True),
        ("", "5", False),
        ("٥", "5", True),
        ("ÜBER", "über", True),
    ],
)
def test_relaxed_accuracy_tolerates_5_percent_of_a_number_and_nothing_else(prediction, answer, right):
    assert relaxed_accuracy(prediction, [answer]) == right
    assert relaxed_accuracy(prediction, ["something else", answer]) == right


@given(
    st.floats(-1e6, 1e6).filter(lambda x: abs(x) > 1e-3),
    st.floats(-0.2, 0.2).filter(lambda x: abs(abs(x) - 0.05) > 1e-6),
)
def test_relaxed_accuracy_is_about_the_answer_and_not_the_prediction(target, change):
    assert relaxed_accuracy(str(target * (1 + change)), [str(target)]) == (abs(change) < 0.05)


# ---- exact match, OCRBench ----


@pytest.mark.parametrize(
    ("prediction", "answer", "right"),
    [(" B.\n", "b", True), ("B", "B.", True), ("AB", "B", False), ("", "B", False), ("straße", "STRASSE", False)],
)
def test_exact_match_ignores_case_outer_space_and_a_final_full_stop(prediction, answer, right):
    assert exact_match(prediction, [answer]) == right


@pytest.mark.parametrize(
    ("prediction", "answers", "formula", "right"),
    [
        ("The word is COFFEE.", ["coffee"], False, True),
        ("cof fee", ["coffee"], False, False),
        ("two\nlines", ["Two lines"], False, True),
        ("tea", ["coffee", "tea"], False, True),
        ("", ["coffee"], False, False),
        ("coffee", [""], False, False),
        ("写着“咖啡”", ["咖啡"], False, True),
        (r"the result is \frac { A } { 2 }", [r"\frac{A}{2}"], True, True),
        (r"\frac { a } { 2 }", [r"\frac{A}{2}"], True, False),
    ],
)
def test_an_answer_may_occur_anywhere_in_what_ocrbench_scores(prediction, answers, formula, right):
    assert contains(prediction, answers, formula=formula) == right


# ---- all of them ----


@pytest.mark.parametrize("metric", EVERY)
@pytest.mark.parametrize("answers", [[], "red"])
def test_a_question_without_a_list_of_answers_is_refused(metric, answers):
    with pytest.raises(ValueError, match="answers must be a list of at least one text"):
        metric("red", answers)


@pytest.mark.parametrize("metric", EVERY)
@given(st.text(max_size=20), st.lists(st.text(max_size=20), min_size=1, max_size=5))
def test_any_text_gives_a_score_from_0_to_1(metric, prediction, answers):
    assert 0 <= metric(prediction, answers) <= 1


@pytest.mark.parametrize("metric", EVERY)
@given(st.text("abc 1.,%é", min_size=1, max_size=10).filter(str.strip))
def test_the_answer_itself_is_right(metric, answer):
    assert metric(answer, [answer] * 10) == 1


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ("B", "B"),
        (" b. ", "B"),
        ("(C)", "C"),
        ("A. The left car", "A"),
        ("The answer is D", "D"),
        ("Answer: (B) red", "B"),
        ("A car is on the left", None),
        ("I see two", None),
        ("The answer is a car", None),
        ("", None),
    ],
)
def test_the_letter_of_a_choice_is_not_a_word_of_a_sentence(reply, letter):
    assert chosen_letter(reply) == letter
    assert choice(reply, ["B"]) == (letter == "B")


def test_an_answer_that_is_no_letter_is_compared_as_text():
    assert choice("Two.", ["two"]) == 1
    assert choice("A. two", ["two"]) == 0
