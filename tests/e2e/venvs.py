"""Interpreters to run the applications with: a venv for each, with the pinned packages, made once and kept below build/.

Owns: build/venvs. Refuses: an interpreter that is not on this machine (PYTHONS lists those that are); a venv half made is
made anew. Invariant: two processes never make the same venv at once.
"""
import contextlib
import fcntl
import glob
import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(TOP, "tools"))
import services  # noqa: E402

VENVS = os.path.join(services.BUILD, "venvs")
REQUIREMENTS = os.path.join(TOP, "tests", "requirements-apps.txt")
BENCH_REQUIREMENTS = os.path.join(TOP, "tests", "requirements-bench.txt")
SYSTEM = "/usr/bin/python3"
OLDEST, NEWEST = (3, 9), (3, 14)


@dataclass
class Interpreter:
    python: str  # of the venv
    version: str = ""
    env: dict = field(default_factory=dict)

    @property
    def id(self):
        return self.version


@contextlib.contextmanager
def locked(path):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path + ".lock", "w") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        yield


def run(*argv):
    p = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if p.returncode:
        raise RuntimeError(f"{' '.join(argv)}: {p.stdout[-3000:]}")
    return p.stdout.strip()


def version_of(python):
    """(major, minor, micro)"""
    return tuple(int(n) for n in run(python, "-Sc", "import sys; print(*sys.version_info[:3])").split())


def text_of(requirements):
    with open(requirements) as f:
        text = f.read()
    return text if requirements == REQUIREMENTS else text + text_of(REQUIREMENTS)


def venv(python=SYSTEM, requirements=REQUIREMENTS):
    """The Interpreter of a venv of `python` with all of `requirements`."""
    version = ".".join(str(n) for n in version_of(python))
    key = hashlib.sha256((os.path.realpath(python) + text_of(requirements)).encode()).hexdigest()[:8]
    folder = os.path.join(VENVS, f"{version}-{key}")
    with locked(folder):
        if not os.path.exists(os.path.join(folder, "ready")):
            shutil.rmtree(folder, ignore_errors=True)
            run(python, "-m", "venv", folder)
            run(os.path.join(folder, "bin", "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check", "-r",
                requirements)
            open(os.path.join(folder, "ready"), "w").close()
    return Interpreter(os.path.join(folder, "bin", "python"), version)


def with_package(interpreter, package, pin):
    """The same with another release of one package, which comes before the one of the venv."""
    minor = "".join(interpreter.version.split(".")[:2])
    folder = os.path.join(VENVS, f"{package}-{pin}-{minor}")
    target = os.path.join(folder, "site-packages")
    with locked(folder):
        if not os.path.exists(os.path.join(folder, "ready")):
            shutil.rmtree(folder, ignore_errors=True)
            run(interpreter.python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps", "--target",
                target, f"{package}=={pin}")
            open(os.path.join(folder, "ready"), "w").close()
    path = ":".join(p for p in (target, interpreter.env.get("PYTHONPATH")) if p)
    return Interpreter(interpreter.python, interpreter.version, {**interpreter.env, "PYTHONPATH": path})


def found():
    """{name: path} of the interpreters of this machine that are to be traced; "system" is the first."""
    candidates = [SYSTEM] + sorted(glob.glob(os.path.expanduser("~/.pyenv/versions/*/bin/python"))) + [
        f"{folder}/python3.{n}" for folder in ("/usr/local/bin", "/usr/bin") for n in range(OLDEST[1], NEWEST[1] + 1)]
    versions, seen = {}, set()
    for path in candidates:
        with contextlib.suppress(OSError, RuntimeError, ValueError):
            version = version_of(path)
            if OLDEST <= version[:2] <= NEWEST and os.path.realpath(path) not in seen:
                seen.add(os.path.realpath(path))
                versions["system" if path == SYSTEM else ".".join(map(str, version))] = path
    return versions


if __name__ == "__main__":
    for name, path in found().items():
        print(name, path)
    for path in sys.argv[1:]:
        print(venv(path))
