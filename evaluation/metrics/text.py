"""Answers against answers, each function from 0 (wrong) to 1 (right) for one question; a set's figure is the mean.

`answers` are a question's accepted answers, at least one. A question that was not answered is an empty prediction.
"""

import re
from collections.abc import Sequence
from math import isfinite

from rapidfuzz.distance import Levenshtein

ANLS_THRESHOLD = 0.5
RELAXED_TOLERANCE = 0.05

# The table of the VQA evaluation: a word that lacks one apostrophe of these gets it back.
CONTRACTIONS = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
    he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've
    o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
    someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've
    there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's
    what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've
    wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
""".split()
RESTORED = {
    full[:at] + full[at + 1 :]: full for full in CONTRACTIONS for at, character in enumerate(full) if character == "'"
} | {"somebody'd": "somebodyd"}  # the wrong way round there, and so here
NUMBERS = {"none": "0"} | {
    word: str(n) for n, word in enumerate("zero one two three four five six seven eight nine ten".split())
}
ARTICLES = {"a", "an", "the"}


def anls(prediction: str, answers: Sequence[str]) -> float:
    """Normalised Levenshtein similarity to the closest answer, 0 where that is below 0.5 (DocVQA, InfographicVQA).

    1 - distance / longer length (ST-VQA, arXiv 1905.13648), without regard to case and to how much white space there
    is. As in the Robust Reading Competition's script, a similarity of just 0.5 still counts; other than there, the
    length is that after white space is collapsed, so that padding an answer cannot raise its score.
    """
    found = " ".join(prediction.lower().split())
    best = max(_similarity(found, " ".join(answer.lower().split())) for answer in _checked(answers))
    return best if best >= ANLS_THRESHOLD else 0.0


def vqa_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """VQAv2's accuracy: the mean over annotators of min(1, others who said the same / 3) (arXiv 1612.00837).

    Follows the evaluation code of github.com/GT-Vision-Lab/VQA: where all annotators agree, only case and outer white
    space do not matter; otherwise both sides are normalized (`normalized`). It needs the answers of all annotators,
    repetitions included: fewer than four cannot give 1.
    """
    given = [answer.replace("\n", " ").replace("\t", " ").strip() for answer in _checked(answers)]
    found = prediction.replace("\n", " ").replace("\t", " ").strip()
    if len(set(given)) > 1:
        given, found = [normalized(answer) for answer in given], normalized(found)
    return _leave_one_out(found.lower(), [answer.lower() for answer in given])


def textvqa_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """TextVQA's accuracy: VQAv2's formula, but both sides are always normalized, and a little differently.

    Follows the evaluator that TextVQA's challenge used (EvalAI; github.com/facebookresearch/mmf): commas, question
    marks and case go first, and a possessive 's is split off.
    """

    def form(text: str) -> str:
        bare = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
        return normalized(bare.replace("\n", " ").replace("\t", " ").strip())

    return _leave_one_out(form(prediction), [form(answer) for answer in _checked(answers)])


def relaxed_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """ChartQA's accuracy: a number within 5 % of the answer, or the same text but for case (arXiv 2203.10244).

    "12 %" is the number 0.12, as in the evaluation of Pix2Struct and Qwen-VL. Other than there, an answer of 0 is met
    by every way of writing 0, and not by its digits alone.
    """
    return float(any(_relaxed(prediction, answer) for answer in _checked(answers)))


def exact_match(prediction: str, answers: Sequence[str]) -> float:
    """The same text but for case, outer white space and a final full stop (RealWorldQA, as lmms-eval scores it)."""
    found, *wanted = (text.lower().strip().rstrip(".") for text in (prediction, *_checked(answers)))
    return float(found in wanted)


def choice(prediction: str, answers: Sequence[str]) -> float:
    """Multiple choice: the letter that a reply gives ("B", "(B)", "B. The left car", "The answer is B").

    Where the answer is no letter, the same text (`exact_match`).
    """
    wanted = [answer.strip().rstrip(".").strip("()").upper() for answer in _checked(answers)]
    letters = [letter for letter in wanted if re.fullmatch("[A-Z]", letter)]
    return float(chosen_letter(prediction) in letters) if letters else exact_match(prediction, answers)


def chosen_letter(prediction: str) -> str | None:
    """The option that a reply names; None where it names none. A word "A" or "I" in a sentence is no option."""
    found = re.match(r"\s*\(?([A-Za-z])\)?\s*(?:[.):,]|$)", prediction) or re.search(
        r"(?i:answer|option|choice)(?i:\s+is)?\s*:?\s*\(?([A-Z])\)?(?![A-Za-z'])", prediction
    )
    return found[1].upper() if found else None


def says_yes(prediction: str) -> bool:
    """POPE's reading of a reply (arXiv 2305.10355): no where its first sentence has "no" or "not", else yes."""
    return not {"no", "not"} & {*prediction.partition(".")[0].replace(",", "").lower().split()}


def contains(prediction: str, answers: Sequence[str], *, formula: bool = False) -> float:
    """OCRBench's score: an answer occurs anywhere in the prediction (arXiv 2305.07895).

    Args:
        formula: for handwritten mathematics (HME100k), which is LaTeX: case matters and spaces do not. Otherwise case
            and outer white space do not matter, and a line break is a space.

    An empty answer occurs nowhere.
    """

    def form(text: str) -> str:
        text = text.strip().replace("\n", " ")
        return text.replace(" ", "") if formula else text.lower()

    found = form(prediction)
    return float(any(form(answer) and form(answer) in found for answer in _checked(answers)))


def normalized(text: str) -> str:
    """VQA's form of an answer: lower-cased, no articles, no punctuation, numbers up to ten in digits, apostrophes back.

    As its code does it, oddities included: punctuation becomes a space, but nothing where a space is beside it
    anywhere in the text or where a comma stands between two digits, and only the first 32 full stops go (there, a flag
    is passed as a count).
    """
    joined = re.search(r"\d,\d", text) is not None
    bare = text
    for mark in ';/[]"{}()=+\\_-><@`,?!':
        bare = bare.replace(mark, "" if joined or f"{mark} " in text or f" {mark}" in text else " ")
    bare = re.sub(r"\.(?!\d)", "", bare, count=32)
    words = (NUMBERS.get(word, word) for word in bare.lower().split())
    return " ".join(RESTORED.get(word, word) for word in words if word not in ARTICLES)


def _checked(answers: Sequence[str]) -> Sequence[str]:
    if isinstance(answers, str) or not answers:
        raise ValueError(f"answers must be a list of at least one text, got {answers!r}")
    return answers


def _leave_one_out(prediction: str, answers: Sequence[str]) -> float:
    same = [answer == prediction for answer in answers]
    return sum(min(1.0, (sum(same) - mine) / 3) for mine in same) / len(same)


def _similarity(a: str, b: str) -> float:
    """1 - Levenshtein distance / longer length; 1 for two empty texts, and 0 where the lengths rule out 0.5."""
    longer, shorter = max(len(a), len(b)), min(len(a), len(b))
    if longer == 0:
        return 1.0
    if 2 * shorter < longer:
        return 0.0
    return Levenshtein.normalized_similarity(a, b)


def _relaxed(prediction: str, answer: str) -> bool:
    number, target = _number(prediction), _number(answer)
    if number is None or target is None:
        return prediction.lower() == answer.lower()
    return number == 0 if target == 0 else abs(number - target) / abs(target) <= RELAXED_TOLERANCE


def _number(text: str) -> float | None:
    try:
        value = float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None
    return value if isfinite(value) else None
