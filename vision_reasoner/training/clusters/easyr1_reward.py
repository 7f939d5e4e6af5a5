"""The rewards as EasyR1 calls them: `worker.reward.reward_function=<this file>:compute_score`."""

from collections.abc import Sequence
from typing import Any

from vision_reasoner.training.grpo.rewards import THRESHOLD_SIDE, Compat, compute_reward

REWARD_NAME = "vision_reasoner"
REWARD_TYPE = "batch"


def compute_score(
    reward_inputs: Sequence[dict[str, Any]], *, frame_side: int = THRESHOLD_SIDE, compat: Compat = None
) -> list[dict[str, float]]:
    """What each reply is worth: the total as "overall", every part under its name.

    Args:
        reward_inputs: one for each reply, with its text under "response" and the row's solution under "ground_truth".
        frame_side: the side of the model's frame; set by `worker.reward.reward_function_kwargs`.
        compat: as for `rewards.compute_reward`; set there, too.
    """
    size = (frame_side, frame_side)
    rewards = [
        compute_reward(row["response"], row["ground_truth"], model_size=size, compat=compat) for row in reward_inputs
    ]
    return [{"overall": reward.total, **reward._asdict()} for reward in rewards]
