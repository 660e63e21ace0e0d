"""What tests start, they can stop."""

import signal
import subprocess
import sys
from pathlib import Path

ASKED = """
import signal, subprocess, sys
import servers
servers.hear_interrupts()
child = subprocess.Popen([sys.executable, "-c", "print(flush=True); import time; time.sleep(60)"],
                         stdout=subprocess.PIPE)
child.stdout.readline()
child.send_signal(signal.SIGINT)
print(child.wait(30))
"""


def test_what_is_started_in_the_background_hears_an_interrupt():
    script = [sys.executable, "-W", "ignore", "-c", ASKED]
    ignoring = ["bash", "-c", 'trap "" INT; exec "$@"', "bash", *script]
    done = subprocess.run(
        ignoring, cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    assert int(done.stdout or 0) in (-signal.SIGINT, 1), done.stderr
