"""What a process tells its memory: tried in one of its own, as it cannot be taken back."""

import subprocess
import sys

TRIAL = """
import gc
from shared import memory
memory.keep_pieces()
memory.settle()
print(gc.get_threshold()[0], gc.get_freeze_count() > 1000, len(bytes(memory.MMAP_THRESHOLD)))
"""


def test_what_the_start_has_made_is_frozen_and_what_is_young_is_walked_through_less_often() -> None:
    said = subprocess.run([sys.executable, "-c", TRIAL], capture_output=True, text=True, check=True, timeout=60).stdout
    assert said.split() == ["10000", "True", "4194304"]
