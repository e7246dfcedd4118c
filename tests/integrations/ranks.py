"""Processes that run a function each, as ranks of a gloo group.

They are forked by a process that has imported what they need, as importing torch takes seconds.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
import warnings
from datetime import timedelta
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any, NamedTuple

SLOWNESS = float(os.environ.get("LABELTRACK_SLOWNESS", "1"))  # of a machine that runs other things
TIMEOUT = 100  # seconds, of a function in all its processes; alone, none takes ten
EPOCH = 7  # steps, of six samples on all ranks together
PARTS = ((1, 3), (2, 7), (3, 10), (3, 15), (1, 21))  # of a training: number of ranks, and the step that it goes to


class Result(NamedTuple):
    """What a rank did: what its function returned, what it printed, and its exit status."""

    answer: Any
    output: str
    status: int


class Ranks:
    """Runs functions of a module beside this one, which take rank and number of ranks and return what JSON holds."""

    def __init__(self, module, **environment):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        env = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"} | environment
        self._server = subprocess.Popen([sys.executable, __file__, module], env=env, **pipes)

    def run(self, function, folder, world=2, *, seconds=60, **environment):
        """Return what each rank did; `seconds` is the timeout of their group."""
        request = {"function": function, "folder": str(folder), "world": world, "seconds": seconds}
        print(json.dumps(request | {"environment": environment}), file=self._server.stdin, flush=True)
        statuses = json.loads(self._server.stdout.readline())
        found = []
        for rank, status in enumerate(statuses):
            answer = Path(folder, f"rank{rank}.json")
            value = json.loads(answer.read_text(encoding="utf-8")) if answer.exists() else None
            output = Path(folder, f"rank{rank}.txt").read_text(encoding="utf-8", errors="replace")
            found.append(Result(value, output, status))
        return found

    def answers(self, *arguments, **options):
        """Return the answer of each rank; all have to succeed."""
        found = self.run(*arguments, **options)
        assert not any(result.status for result in found), "\n".join(result.output for result in found)
        return [result.answer for result in found]

    def in_parts(self, folder, function="goes_on"):
        """Run a training that is interrupted, and goes on with more or fewer ranks.

        Return the rows of all samples, once per mode and epoch, as a sampler repeats the first ones, and the history.
        """
        first, once, histories = 0, {}, []
        for world, last in PARTS:
            answers = self.answers(function, folder, world, FIRST=str(first), LAST=str(last))
            for row in chain.from_iterable(zip_longest(*(answer["seen"] for answer in answers))):
                if row is not None:
                    once.setdefault((*row[:2], row[-1]), row)
            histories = [answer["history"] for answer in answers]
            assert all(found == histories[0] for found in histories)
            first = last
        return list(once.values()), {(mode, step): stats for mode, _, step, stats in histories[0]}

    def told(self, folder, case, *, seconds=5, function="ends"):
        """Return the error on rank 0 where rank 1 ends; it is there in the timeout of their group, or little later."""
        survivor, other = self.run(function, folder, seconds=seconds, CASE=case)
        assert survivor.status == 0, survivor.output
        text, took = survivor.answer
        assert took < seconds + 3 * SLOWNESS
        assert other.status != 0
        return text

    def close(self):
        """End the process."""
        self._server.stdin.close()
        self._server.wait()
        self._server.stdout.close()


def _child(functions, request, rank):
    """Run the function and leave the process."""
    status = 1
    try:
        folder = Path(request["folder"])
        output = os.open(folder / f"rank{rank}.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(folder)
        world = request["world"]
        os.environ.update({"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)})
        os.environ.update(request["environment"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            limit = timedelta(seconds=request["seconds"])
            functions.start(f"file://{folder}/store", rank, world, limit)
            answer = getattr(functions, request["function"])(rank, world)
        Path(f"rank{rank}.json").write_text(json.dumps(answer), encoding="utf-8")
        status = 0
    except BaseException:  # noqa: BLE001 (the parent goes on elsewhere)
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _serve(module):
    functions = importlib.import_module(module)
    for line in sys.stdin:
        request = json.loads(line)
        Path(request["folder"], "store").unlink(missing_ok=True)
        children = []
        for rank in range(request["world"]):
            child = os.fork()
            if child == 0:
                _child(functions, request, rank)
            children.append(child)
        end = time.monotonic() + TIMEOUT
        statuses = dict.fromkeys(children)
        while None in statuses.values():
            for child in [child for child, status in statuses.items() if status is None]:
                ended, status = os.waitpid(child, os.WNOHANG)
                if ended:
                    statuses[child] = os.waitstatus_to_exitcode(status)
                elif time.monotonic() > end:
                    os.kill(child, signal.SIGKILL)
            time.sleep(0.01)
        sys.stdout.write(f"{json.dumps(list(statuses.values()))}\n")
        sys.stdout.flush()
    os._exit(0)  # frameworks take seconds to leave


if __name__ == "__main__":
    sys.path.append(str(Path(__file__).parents[1]))  # for imports of `integrations`
    _serve(sys.argv[1])
