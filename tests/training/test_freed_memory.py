import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
from transfergen.training.freed_memory import keep_freed_memory

keep_freed_memory(int(sys.argv[1]))
for _ in range(8):
    b"x" * (20 * 2**20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt * resource.getpagesize() // 2**20)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a choice of glibc's")
def test_memory_that_was_freed_is_taken_again_without_the_system():
    def mebibytes_from_the_system(most):
        done = subprocess.run([sys.executable, "-c", PROGRAM, str(most)], capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert mebibytes_from_the_system(0) > 8 * 20
    assert mebibytes_from_the_system(2**31 - 1) < 3 * 20
