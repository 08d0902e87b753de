"""Each copy of a context is seen once, and where it costs least: which program runs how often while an interpreter copies.

Invariant: an interpreter for which no place within its functions is proven is seen at their return.
"""
import collections
import contextlib
import ctypes
import json
import os
import platform
import subprocess

import pytest
import services
import venvs

COPIES = 1000
# Whose machine code was looked at: Debian 12's own, and releases as pyenv builds them. Others may be compiled otherwise.
PROVEN = ("3.9.18", "3.10.13", "3.11.2", "3.11.7", "3.12.1", "3.13.0")
SYS_BPF, BPF_ENABLE_STATS = 321, 32
APP = """
import contextvars, sys
how = {"copy_context": contextvars.copy_context, "copy": contextvars.copy_context().copy, "new": contextvars.Context}
kept = []
print("ready", flush=True)
for line in sys.stdin:
    name, keep = line.split()
    for _ in range(%d):
        made = how[name]()
        kept.append(made) if keep == "keep" else None
    print("done", flush=True)
""" % COPIES


@contextlib.contextmanager
def counting():
    """The kernel counts the runs of BPF programs while the descriptor is open."""
    fd = ctypes.CDLL(None, use_errno=True).syscall(SYS_BPF, BPF_ENABLE_STATS, ctypes.byref(ctypes.c_uint32(0)), 4)
    assert fd >= 0, os.strerror(ctypes.get_errno())
    try:
        yield
    finally:
        os.close(fd)


def runs_of(agent):
    """{name of a program that tells of copies: runs}"""
    bpftool = subprocess.run([os.path.join(services.TOP, "tools", "find-bpftool")], capture_output=True, text=True).stdout.strip()
    runs = collections.Counter()
    for kind, number in services.bpf_objects(agent.pid):
        if kind == "prog":
            text = subprocess.run([bpftool, "-j", "prog", "show", "id", str(number)], capture_output=True, text=True).stdout
            program = json.loads(text)
            if program.get("name", "").startswith("context_"):
                runs[program["name"]] += program.get("run_cnt", 0)
    return runs


@pytest.fixture
def copier():
    """start(python): the process; copies(process, …) has it copy."""
    running = []

    def start(python):
        running.append(subprocess.Popen([python, "-c", APP], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        assert running[-1].stdout.readline() == "ready\n"
        return running[-1]

    yield start
    for process in running:
        process.stdin.close()
        process.stdout.close()
        assert process.wait(20) == 0


def runs_while(process, agent, how, keep):
    with counting():
        before = runs_of(agent)
        process.stdin.write(f"{how} {keep}\n")
        process.stdin.flush()
        assert process.stdout.readline() == "done\n"
        return runs_of(agent) - before


@pytest.mark.skipif(platform.machine() != "x86_64", reason="instructions are decoded on x86-64 only")
@pytest.mark.parametrize("version", venvs.found())
def test_seen_once_where_it_is_cheap(tracing, copier, version):
    proven = ".".join(str(n) for n in venvs.version_of(venvs.found()[version])) in PROVEN
    process = copier(venvs.found()[version])
    t = tracing("http/protobuf")
    agent = t.start(pids=[process.pid])
    for keep in ("drop", "keep"):  # from the list of free ones, and newly allocated: these have places of their own in some
        seen = runs_while(process, agent, "copy_context", keep)
        assert sum(seen.values()) == COPIES and not (proven and seen["context_copied"]), seen
        seen = runs_while(process, agent, "copy", keep)
        assert sum(seen.values()) == COPIES, seen
        seen = runs_while(process, agent, "new", keep)
        assert sum(seen.values()) == COPIES, seen
    t.finish()
    assert not t.drops().get("context_unlikely"), t.agent.output()
