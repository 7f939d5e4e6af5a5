"""Chat templates of checkpoints: programs of others, which may loop without end or fill the memory.

transformers renders them in a sandbox that keeps them from the system but sets no limits. So each is rendered once in a
process of its own that has limits, when its checkpoint is loaded.
"""

import json
import subprocess
import sys
from functools import cache
from pathlib import Path

from vision_reasoner.errors import CheckpointError

MAX_SECONDS = 2  # of computing; those of the released checkpoints take milliseconds
MAX_WAIT_SECONDS = 100  # on a busy machine
MAX_MEMORY_BYTES = 1 << 30
MAX_CHARS = 1 << 20  # of a rendered conversation of one turn
_TOO_MUCH = 9  # the exit code

_IMAGE_TURN = {"role": "user", "content": [{"type": "image", "image": "a"}, {"type": "text", "text": "Find the cup."}]}
_TEXT_TURN = {"role": "user", "content": "Find the cup."}
_SYSTEM_TURN = {"role": "system", "content": "You are a helpful assistant."}
_CONVERSATIONS = [[_IMAGE_TURN], [_SYSTEM_TURN, _IMAGE_TURN], [_TEXT_TURN], [_SYSTEM_TURN, _TEXT_TURN]]

# What a template gets wrong otherwise, transformers says.
_RENDER = r"""
import json, re, sys
template, conversations, seconds, memory, characters, too_much = json.load(sys.stdin)
try:
    import resource
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
except (ImportError, ValueError, OSError):
    pass
try:
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    environment = ImmutableSandboxedEnvironment(extensions=["jinja2.ext.loopcontrols"])
    compiled = environment.from_string(re.sub(r"{%-?\s*(end)?generation\s*-?%}", "", template))
    for messages in conversations:
        written = 0
        try:
            for piece in compiled.generate(messages=messages, add_generation_prompt=True):
                written += len(piece)
                if written > characters:
                    sys.exit(too_much)
        except MemoryError:
            sys.exit(too_much)
        except Exception:
            pass
except MemoryError:
    sys.exit(too_much)
except Exception:
    pass
"""


def check_template(template: object, folder: Path) -> None:
    """Raise a CheckpointError where a checkpoint's chat template does not end, or takes or writes too much.

    Args:
        template: as transformers has it: a text, several by name, or None.
        folder: of the checkpoint.
    """
    several = template.values() if isinstance(template, dict) else [template]
    if not all(_ends(one) for one in several if isinstance(one, str)):
        raise CheckpointError(f"{folder}: its chat template does not end or writes too much; download it again")


@cache
def _ends(template: str) -> bool:
    command = [sys.executable, "-I", "-c", _RENDER]
    given = json.dumps([template, _CONVERSATIONS, MAX_SECONDS, MAX_MEMORY_BYTES, MAX_CHARS, _TOO_MUCH])
    try:
        done = subprocess.run(
            command, input=given, text=True, capture_output=True, timeout=MAX_WAIT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode >= 0 and done.returncode != _TOO_MUCH
