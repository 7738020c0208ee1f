import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
from pathlib import Path
from transfergen.training.freed_memory import keep_freed_memory

def mebibytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 2**20

keep_freed_memory(int(sys.argv[1]))
before = mebibytes()
b"x" * (20 * 2**20)  # freed at once
print(mebibytes() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a choice of glibc's")
def test_memory_that_was_freed_stays_with_the_process():
    def mebibytes_kept(most):
        done = subprocess.run([sys.executable, "-c", PROGRAM, str(most)], capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert mebibytes_kept(0) < 10
    assert mebibytes_kept(2**31 - 1) >= 19
