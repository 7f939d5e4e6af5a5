"""Multiple choice: the question lists its options, and the answer is a letter."""

from evaluation.suites.vqa import questions

SUITE = questions(
    "multiplechoice", "choice", instruction="\nAnswer with the option's letter from the given choices directly."
)
