"""A worker keeps the memory that its threads have freed."""

import pathlib
import subprocess
import sys

import pytest

# A worker, whose job takes 100 MB in a thread and gives them back, three times; it prints the pages that came
# from the kernel each time.
SCRIPT = """
import resource, sys, threading
from bltjax.parallel import host
from bltjax.run import worker

def pages():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def job(*args, **options):
    for _ in range(3):
        before, thread = pages(), threading.Thread(target=lambda: bytearray(100_000_000))
        thread.start()
        thread.join()
        print(pages() - before)

def ready():  # the last thing before the job
    from bltjax.run import jobs

    jobs.kind_of, jobs.do = lambda directory: "another", job

host.ready = ready
sys.argv = ["worker", sys.argv[1]]
sys.exit(worker.main())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks glibc")
def test_memory_that_a_thread_freed_is_used_again(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=pathlib.Path(__file__).parent.parent,
    ) as worker:
        first, *later = [int(line) for line in worker.stdout]
    assert worker.returncode == 0
    assert first > 20_000 and max(later) < 1000, later
