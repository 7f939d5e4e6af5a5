"""The rewards as veRL calls them: `reward.custom_reward_function.path` is this module or this file."""

from typing import Any

from vision_reasoner.training.grpo.rewards import THRESHOLD_SIDE, Compat, compute_reward


def compute_score(
    data_source: str,  # noqa: ARG001 - every row has the same rewards
    solution_str: str,
    ground_truth: str,
    extra_info: dict[str, Any] | None = None,
    *,
    compat: Compat = None,
    **_options: Any,
) -> dict[str, float]:
    """What one reply is worth: the total as "score", every part under its name.

    Args:
        data_source: the row's.
        solution_str: the reply, as veRL calls it.
        ground_truth: the row's solution.
        extra_info: the row's; its "frame_side" is the side of the model's frame, 840 where it is not there.
        compat: as for `rewards.compute_reward`; set by `reward.custom_reward_function.reward_kwargs`.
    """
    side = (extra_info or {}).get("frame_side", THRESHOLD_SIDE)
    reward = compute_reward(solution_str, ground_truth, model_size=(side, side), compat=compat)
    return {"score": reward.total, **reward._asdict()}
