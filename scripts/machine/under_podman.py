"""Run the container image under Podman, with a memory limit of Podman's, and let a model exceed it.

``under_podman.py FOLDER CHECKOUT``: FOLDER holds buildah's images, and ``container/bundles`` what
``container.py`` put there. The container has control group, namespaces and filter of system calls
as Podman makes them; no network but loopback. Needs root.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

MEMORY = 200 * 10**6
NAME = "edgeml-machine"
PATIENCE_S = 300

CALL = """
import edgeml, numpy, sys
pixel = float(sys.argv[1])
with edgeml.Client("/run/edgeml/agent.sock", "sleeper") as client:
    print(client.infer({"image": numpy.full((1, 1, 8, 8), pixel, numpy.float32)})["scores"].sum())
"""
GROW = 2000
"""The pixel at which the sleeper of tests/support allocates without end."""
SPARE = "from edgeml.device_agent.limits.spare import available_bytes; print(available_bytes())"


class Podman:
    """On buildah's images."""

    def __init__(self, folder: Path) -> None:
        self._words = ["podman", "--root", str(folder / "images"), "--log-level", "error"]
        self._words += ["--runroot", str(folder / "images-run"), "--storage-driver", "vfs"]
        self._words += ["--cgroup-manager", "cgroupfs"]

    def __call__(self, *words: str) -> list[str]:
        return [*self._words, *words]

    def inside(self, *words: str) -> str:
        """What a program says that is run in the container; its complaint where it fails."""
        done = subprocess.run(
            self("exec", NAME, *words),
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return done.stdout


class Log:
    """What the agent says, as it comes."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        self._lines = process.stderr

    def wait_for(self, *words: str) -> None:
        """The next line with all of these.

        Raises:
            AssertionError: it ended without.
        """
        for line in self._lines:
            sys.stdout.write(line)
            if all(word in line for word in words):
                return
        raise AssertionError(f"the agent ended, or {PATIENCE_S} s were over, without {words}")


def main(folder: Path, checkout: Path) -> None:
    """Raises where something is not as it should be."""
    podman = Podman(folder)
    place = folder / "container"
    (place / "sleeper.toml").write_text(
        '[[model]]\nbundle = "/bundles/sleeper-1.0.edgeml"\ndeadline_ms = 60000\n'
    )
    options = ["--rm", "--name", NAME, "--network", "none", "--cgroups", "no-conmon"]
    # Podman asks for more than a root without CAP_SYS_RESOURCE may give.
    options += ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096"]
    options += ["--memory", str(MEMORY), "--memory-swap", str(MEMORY)]
    options += ["--volume", f"{place}/sleeper.toml:/etc/edgeml/agent.toml:ro"]
    options += ["--volume", f"{place}/bundles:/bundles:ro"]
    options += ["--volume", f"{checkout}/tests:/tests:ro"]
    options += ["--env", "PYTHONPATH=/tests/support/sleeper"]
    os.environ["DISABLE_HC_SYSTEMD"] = "true"  # its health is asked for below
    running = subprocess.Popen(
        podman("run", *options, "edgeml-agent"),
        stderr=subprocess.PIPE,
        text=True,
        cwd=place,  # Podman's monitor leaves a file there when memory runs out
    )
    overdue = threading.Timer(PATIENCE_S, running.kill)
    overdue.start()
    try:
        log = Log(running)
        log.wait_for(" ready ")
        scores = podman.inside("python", "-c", CALL, "0.5")
        assert abs(float(scores) - 1) < 1e-5, scores
        spare = int(podman.inside("python", "-c", SPARE))
        assert spare < MEMORY, f"the agent believes to have {spare:,} bytes"
        subprocess.run(podman("healthcheck", "run", NAME), check=True)

        refused = podman.inside("python", "-c", CALL, str(GROW))
        assert "CallError" in refused, refused
        log.wait_for("memory-exceeded", f"{MEMORY / 1e6:.0f} MB are allowed in all")
        log.wait_for(" replaced ")
        scores = podman.inside("python", "-c", CALL, "0.5")
        assert abs(float(scores) - 1) < 1e-5, scores

        subprocess.run(podman("stop", NAME), check=True, stdout=subprocess.DEVNULL)
        log.wait_for(" ended")
        assert running.wait() == 0, running.returncode
        sys.stdout.write(
            f"machine: under Podman with --memory {MEMORY} there are {spare:,} bytes to spare; "
            "podman healthcheck: healthy; a worker that grew over the limit was replaced, and the "
            "container lived on; podman stop: status 0\n"
        )
    finally:
        overdue.cancel()
        subprocess.run(podman("rm", "--force", "--ignore", NAME), check=True)
        running.wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
