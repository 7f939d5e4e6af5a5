"""Random checkpoints of the real architectures, small enough for tests, saved and laid out as the trained ones are.

Only their shapes and files matter: what they say is noise, but noise that depends on picture and text.
"""

import json
from pathlib import Path
from typing import Any

FRAME_SIDE = 112  # 4 x 4 merged vision tokens
SPECIAL_TOKENS = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
]
# The turns and markers of Qwen2.5-VL's own template, without its video branch.
CHAT_TEMPLATE = """\
{% for message in messages %}{% if loop.first and message['role'] != 'system' %}<|im_start|>system
You are a helpful assistant.<|im_end|>
{% endif %}<|im_start|>{{ message['role'] }}
{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}\
{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}\
{% endfor %}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


def build_tokenizer() -> Any:
    """A Qwen2 tokenizer whose words are the 256 bytes, plus Qwen's special tokens."""
    from transformers import Qwen2Tokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    vocab = {character: i for i, character in enumerate(bytes_to_unicode().values())}
    tokenizer = Qwen2Tokenizer(vocab=vocab, merges=[], eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokenizer.add_special_tokens({"additional_special_tokens": SPECIAL_TOKENS[1:]})
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _generation_config(tokenizer: Any, **settings: Any) -> Any:
    from transformers import GenerationConfig

    return GenerationConfig(
        eos_token_id=[tokenizer.convert_tokens_to_ids("<|im_end|>")],
        pad_token_id=tokenizer.pad_token_id,
        **settings,
    )


def save_reasoner(folder: Path, *, seed: int = 0, **config: Any) -> None:
    """A Qwen2.5-VL of two layers, its processor and its generation config."""
    import torch
    from transformers import (
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
    )

    tokenizer = build_tokenizer()
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS}
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(
            text_config={
                "vocab_size": len(tokenizer),
                "hidden_size": 64,
                "intermediate_size": 96,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "max_position_embeddings": 4096,
                "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0, "mrope_section": [2, 3, 3]},
                "bos_token_id": None,
                "eos_token_id": ids["<|im_end|>"],
                "initializer_range": 0.3,  # wide, so that replies differ from picture to picture
            },
            vision_config={
                "depth": 2,
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_heads": 2,
                "out_hidden_size": 64,
                "fullatt_block_indexes": [1],
                "initializer_range": 0.3,
            },
            image_token_id=ids["<|image_pad|>"],
            video_token_id=ids["<|video_pad|>"],
            vision_start_token_id=ids["<|vision_start|>"],
            vision_end_token_id=ids["<|vision_end|>"],
            tie_word_embeddings=True,
            **{"frame_side": FRAME_SIDE, **config},
        )
    )
    model.generation_config = _generation_config(tokenizer, repetition_penalty=1.05, do_sample=True, temperature=0.1)
    model.save_pretrained(folder)
    limits = {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 64}
    Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=limits),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(size=limits),
        chat_template=CHAT_TEMPLATE,
    ).save_pretrained(folder)


def save_qwen2_vl(folder: Path) -> None:
    """A Qwen2-VL of two layers: the reasoner's processor, another vision tower."""
    import torch
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    save_reasoner(folder)
    config = json.loads((folder / "config.json").read_text())
    vision = {"depth": 2, "embed_dim": 32, "hidden_size": 64, "num_heads": 2, "mlp_ratio": 2}
    text = {key: value for key, value in config["text_config"].items() if key != "model_type"}
    tokens = {key: value for key, value in config.items() if key.endswith("token_id")}
    torch.manual_seed(0)
    model = Qwen2VLForConditionalGeneration(Qwen2VLConfig(text_config=text, vision_config=vision, **tokens))
    model.generation_config = _generation_config(build_tokenizer())
    model.save_pretrained(folder)


def save_qwen3_vl(folder: Path, *, thinking: bool = False, seed: int = 0) -> None:
    """A Qwen3-VL of three layers, patches of 16 pixels; with a template that opens the thinking, or without."""
    import torch
    from transformers import (
        Qwen2VLImageProcessor,
        Qwen3VLConfig,
        Qwen3VLForConditionalGeneration,
        Qwen3VLProcessor,
        Qwen3VLVideoProcessor,
    )

    tokenizer = build_tokenizer()
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS}
    torch.manual_seed(seed)
    model = Qwen3VLForConditionalGeneration(
        Qwen3VLConfig(
            text_config={
                "vocab_size": len(tokenizer),
                "hidden_size": 64,
                "intermediate_size": 96,
                "num_hidden_layers": 3,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "head_dim": 16,
                "max_position_embeddings": 4096,
                "rope_parameters": {
                    "rope_type": "default",
                    "rope_theta": 1000.0,
                    "mrope_section": [2, 3, 3],
                    "mrope_interleaved": True,
                },
                "initializer_range": 0.3,
            },
            vision_config={
                "depth": 3,
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_heads": 2,
                "out_hidden_size": 64,
                "patch_size": 16,
                "num_position_embeddings": 64,
                "deepstack_visual_indexes": [0, 1],
                "initializer_range": 0.3,
            },
            image_token_id=ids["<|image_pad|>"],
            video_token_id=ids["<|video_pad|>"],
            vision_start_token_id=ids["<|vision_start|>"],
            vision_end_token_id=ids["<|vision_end|>"],
            tie_word_embeddings=True,
        )
    )
    model.generation_config = _generation_config(tokenizer, do_sample=True, temperature=0.7, top_p=0.8, top_k=20)
    model.save_pretrained(folder)
    limits = {"shortest_edge": 64 * 64, "longest_edge": 32 * 32 * 64}
    opening = "{% if add_generation_prompt %}<think>\n{% endif %}" if thinking else ""
    Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=limits, patch_size=16),
        tokenizer=tokenizer,
        video_processor=Qwen3VLVideoProcessor(size=limits),
        chat_template=CHAT_TEMPLATE + opening,
    ).save_pretrained(folder)


def save_router(folder: Path, *, seed: int = 0) -> None:
    """A Qwen2 of two layers and its tokenizer."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    tokenizer = build_tokenizer()
    torch.manual_seed(seed)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=2048,
            initializer_range=0.3,
            tie_word_embeddings=True,
        )
    )
    model.generation_config = _generation_config(tokenizer, do_sample=True, temperature=0.7, top_p=0.8)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def segmenter_config(image_size: int = 256) -> dict[str, Any]:
    """The package's own SAM2 yaml with a small Hiera, as plain data."""
    from importlib.resources import files

    from omegaconf import OmegaConf

    text = files("sam2").joinpath("configs/sam2/sam2_hiera_t.yaml").read_text(encoding="utf-8")
    config: Any = OmegaConf.to_container(OmegaConf.create(text))
    model = config["model"]
    model["image_size"] = image_size
    model["image_encoder"]["trunk"].update(embed_dim=32, stages=[1, 2, 4, 1], global_att_blocks=[5])
    model["image_encoder"]["neck"]["backbone_channel_list"] = [256, 128, 64, 32]
    model["memory_attention"]["num_layers"] = 1
    model["memory_attention"]["layer"]["dim_feedforward"] = 64
    for name in ("self_attention", "cross_attention"):
        model["memory_attention"]["layer"][name]["feat_sizes"] = [image_size // 16, image_size // 16]
    return config


def save_segmenter(folder: Path, *, image_size: int = 256, seed: int = 0) -> None:
    """A SAM2 with a small Hiera: config.yaml and model.safetensors."""
    import torch
    from hydra.utils import instantiate
    from omegaconf import OmegaConf
    from safetensors.torch import save_file

    config = segmenter_config(image_size)
    torch.manual_seed(seed)
    model = instantiate(OmegaConf.create(config)["model"], _recursive_=True)
    folder.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(OmegaConf.create(config), folder / "config.yaml")
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / "model.safetensors")


def save_bundle(folder: Path) -> Path:
    """All three parts in one folder, laid out as a bundled checkpoint."""
    save_reasoner(folder / "reasoner")
    save_router(folder / "router")
    save_segmenter(folder / "segmenter")
    return folder
