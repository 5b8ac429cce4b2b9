"""A stand-in for `python -m bltjax.launch.start FOLDER NAME`, as far as Slurm sees it: it counts steps of a
tenth of a second, writes down every fifth, and when it is asked to stop it writes down where it is and ends
with 42. FOLDER/plan.json says how many steps a job has and what happens at the third of an attempt; what
happened is in FOLDER/events.jsonl. Standard library only: Slurm starts it many times."""

import fcntl
import json
import os
import pathlib
import signal
import sys
import time

FOLDER, NAME = pathlib.Path(sys.argv[-2]), sys.argv[-1]
PROCESS, ATTEMPT = os.environ.get("SLURM_PROCID", "0"), os.environ.get("SLURM_RESTART_COUNT", "0")
PLACE = [f"SLURM_{x}" for x in ("STEP_NUM_TASKS", "PROCID", "JOB_ID", "RESTART_COUNT", "LAUNCH_NODE_IPADDR")]


def note(event: str, step: int) -> None:
    known = dict(event=event, name=NAME, process=int(PROCESS), attempt=int(ATTEMPT), step=step)
    known |= dict(time=time.time(), pid=os.getpid(), node=os.environ["SLURMD_NODENAME"])
    known["environ"] = {name: os.environ[name] for name in PLACE if name in os.environ}
    with (FOLDER / "events.jsonl").open("a") as file:
        file.write(json.dumps(known) + "\n")


def main() -> int:
    plan = json.loads((FOLDER / "plan.json").read_text()).get(NAME, {})
    saved = FOLDER / f"{NAME}.{PROCESS}.steps"
    asked = []
    for sign in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(sign, lambda number, _: asked.append(number))
    with (FOLDER / f"{NAME}.{PROCESS}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            note("waits", 0)
            fcntl.flock(lock, fcntl.LOCK_EX)
        step = int(saved.read_text()) if saved.exists() else 0
        note("begin", step)
        for here in range(step, plan.get("steps", 20)):
            time.sleep(0.1)
            code = plan.get("codes", {}).get(f"{ATTEMPT}.{PROCESS}") if here == step + 3 else None
            if asked or code == 42:
                time.sleep(plan.get("saving", {}).get(PROCESS, 0))
                saved.write_text(str(here + 1))
                note("saved", here + 1)
                return 42
            if code:
                return code
            if here % 5 == 4:
                saved.write_text(str(here + 1))
        note("done", plan.get("steps", 20))
    return 0


sys.exit(main())
