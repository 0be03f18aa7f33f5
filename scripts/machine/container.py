"""Run the container image as its own configuration says, call it, and ask its health check.

Reads what ``buildah inspect`` says of the image: ``container.py FOLDER CHECKOUT < INSPECTED``. The
command, the user and the health check are the image's; the configuration and a bundle come in by
volumes, as docs say. Needs root.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

BUNDLE = """
import sys, pathlib
sys.path.append("/tests")
from support.bundles import Budgets, sleeper_bundle, tiny_bundle
tiny_bundle(pathlib.Path("/bundles"), targets=("tflite",), budgets=Budgets(memory_mb=300))
sleeper_bundle(pathlib.Path("/bundles"))
"""
CALL = """
import edgeml, numpy
with edgeml.Client("/run/edgeml/agent.sock", "tiny") as client:
    print(client.infer({"image": numpy.zeros((1, 1, 8, 8), numpy.float32)})["scores"].sum())
"""
PATIENCE_S = 120


def main(folder: Path, checkout: Path, image: dict[str, Any]) -> None:
    """Raises where something is not as it should be."""
    config = image["Docker"]["config"]
    health: list[str] = config["Healthcheck"]["Test"]
    assert health[0] == "CMD", health
    assert config["User"] == "edgeml"
    place = folder / "container"
    (place / "agent.toml").write_text('[[model]]\nbundle = "/bundles/tiny-1.0.edgeml"\n')
    store = ["buildah", "--root", folder / "images", "--runroot", folder / "images-run"]
    store += ["--storage-driver", "vfs"]
    name = subprocess.check_output([*store, "from", "edgeml-agent"], text=True).strip()
    run = [*store, "run", "--isolation", "chroot"]
    volume = ["--volume", f"{place}/bundles:/bundles", "--volume", f"{checkout}/tests:/tests:ro"]
    subprocess.run(
        [*run, "--user", "root", *volume, name, "--", "python", "-c", BUNDLE], check=True
    )
    command = [*config["Entrypoint"], *config["Cmd"]]
    running = subprocess.Popen(
        [
            *(*run, "--user", config["User"]),
            *("--volume", f"{place}/agent.toml:/etc/edgeml/agent.toml:ro"),
            *("--volume", f"{place}/bundles:/bundles:ro", name, "--", *command),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    overdue = threading.Timer(PATIENCE_S, running.kill)
    overdue.start()
    try:
        assert running.stderr is not None
        for line in running.stderr:
            sys.stdout.write(line)
            if " ready " in line:
                break
        else:
            raise AssertionError(f"the agent did not serve within {PATIENCE_S} s")
        pid = agent_of(running.pid)
        owner = Path(f"/proc/{pid}").stat().st_uid
        assert owner, "it runs as root"
        inside = ["nsenter", "--target", str(pid), "--mount", "--root", "--wd", f"--setuid={owner}"]
        scores = subprocess.check_output([*inside, "python", "-c", CALL], text=True)
        assert abs(float(scores) - 1) < 1e-5, scores
        status = json.loads(subprocess.check_output([*inside, *health[1:]], text=True))
        (model,) = status["models"]
        assert model["outcomes"]["served"] == 1
        sys.stdout.write(
            f"machine: the image serves as user {config['User']}, memory limit by "
            f"{model['memory_limit']}; {' '.join(health[1:4])}: healthy\n"
        )
        subprocess.run(["kill", "-TERM", str(pid)], check=True)
        rest = running.stderr.read()
        assert " ended" in rest, rest
    finally:
        overdue.cancel()
        running.kill()
        running.wait()
        subprocess.run([*store, "rm", name], check=True, stdout=subprocess.DEVNULL)


def agent_of(pid: int) -> int:
    """The agent below buildah's own processes."""
    below = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(pid)], check=False, capture_output=True, text=True
    )
    for line in below.stdout.splitlines():
        child, words = line.split(maxsplit=1)
        if "buildah" not in words.split()[0] and "edgeml" in words:
            return int(child)
        found = agent_of(int(child))
        if found:
            return found
    return 0


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), json.load(sys.stdin))
