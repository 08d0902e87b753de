#!/usr/bin/env python3
"""The proof of the links, from the command line: an application with a route for each way of making a call, under a load
whose every request carries its id; afterwards each client span is compared with the truth. Prints the table as Markdown.

    sudo build/venv/bin/python tests/bench/truth.py --python ~/.pyenv/versions/3.12.1/bin/python --loop asyncio
        --http h11 --connections 1,8,64 --requests 20000

Owns: the services around it (tools/services.py) and the venv of the interpreter (tests/e2e/venvs.py). With --root DIR the
application runs in that chroot, with the interpreter there. The exit code is 1 when any parent is wrong.
"""
import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "..", "tools"))
sys.path.insert(0, os.path.join(HERE, "..", "e2e"))
import services  # noqa: E402
import truth  # noqa: E402
import truth_load  # noqa: E402
import venvs  # noqa: E402
from tracing import Tracing  # noqa: E402

APPS = {"aiohttp": "constructs_aiohttp", "gthread": "constructs_flask", "sync": "constructs_flask"}


def arguments():
    p = argparse.ArgumentParser(description="Compares the parents of all client spans with the truth.")
    p.add_argument("--python", default=venvs.SYSTEM, help="interpreter; with --root as it is called in there")
    p.add_argument("--root", help="a chroot to run the application in")
    p.add_argument("--uvloop", help="another release of uvloop")
    p.add_argument("--app", help="module in tests/apps (constructs; the one that fits the server)")
    p.add_argument("--server", default="uvicorn", choices=sorted(services.SERVERS))
    p.add_argument("--loop", default="uvloop", choices=["uvloop", "asyncio"])
    p.add_argument("--http", default="httptools", choices=["httptools", "h11"])
    p.add_argument("--workers", type=int, default=1)
    p.add_argument("--connections", default="1,8,64", help="one after the other")
    p.add_argument("--requests", type=int, default=20000, help="for each number of connections")
    p.add_argument("--only", help="these constructs, by comma")
    p.add_argument("--without", default="", help="not these constructs")
    p.add_argument("--heartbeat", default="0.02", help="seconds between the calls of a task beside all requests; 0: none")
    p.add_argument("--late", action="store_true", help="attach when the application has already worked for a while")
    p.add_argument("--no-agent", action="store_true", help="the load alone")
    p.add_argument("--quiet", action="store_true", help="the last line of the table only")
    p.add_argument("agent", nargs="*", help="behind --: arguments for the agent")
    return p.parse_args()


def prepare_root(args):
    """The applications and a venv in the chroot; its interpreter."""
    apps, folder = os.path.join(args.root, "opt/apps"), f"/opt/venv-{os.path.basename(args.python)}"
    shutil.copytree(services.APPS, apps, dirs_exist_ok=True)
    shutil.copy(venvs.REQUIREMENTS, os.path.join(args.root, "opt"))
    python = f"{folder}/bin/python"
    if not os.path.exists(args.root + folder + "/ready"):
        for argv in ([args.python, "-m", "venv", folder], [python, "-m", "pip", "install", "-q", "-r",
                                                           "/opt/" + os.path.basename(venvs.REQUIREMENTS)]):
            subprocess.run(["chroot", args.root, *argv], check=True)
        open(args.root + folder + "/ready", "w").close()
    version = subprocess.run(["chroot", args.root, python, "-V"], check=True, capture_output=True, text=True).stdout.split()[1]
    return venvs.Interpreter(python, version)


def interpreter(args):
    found = prepare_root(args) if args.root else venvs.venv(args.python)
    return venvs.with_package(found, "uvloop", args.uvloop) if args.uvloop else found


def start(stack, args, python):
    redis, backend = stack.redis(), stack.truth_backend()
    env = {"REDIS_PORT": redis.port, "AGENT_URL": f"http://127.0.0.1:{backend.port}", "HEARTBEAT": args.heartbeat,
           **python.env}
    return stack.python_app(args.app or APPS.get(args.server, "constructs"), args.server, python.python, args.loop, args.http,
                            args.workers, env=env, root=args.root)


def measure(stack, args, python):
    """(Verdict or None, seconds of the load)"""
    tracing = None
    app = start(stack, args, python)
    table = truth_load.table(app.port)
    only = [n for n in (args.only.split(",") if args.only else table) if n not in args.without.split(",")]
    table = {n: table[n] for n in only}
    if not args.no_agent:
        tracing = Tracing(stack, "grpc")
    if args.late:
        truth_load.run(app.port, truth_load.plan(table, 10 * len(table), tag="late"), 8)
        time.sleep(truth.BEHIND_SECONDS)
    if tracing:
        tracing.start(*args.agent, pids=[app.pid])
    items, begin = [], time.monotonic()
    for n in map(int, args.connections.split(",")):
        part = truth_load.plan(table, args.requests, seed=n, tag=f"{n}c")
        try:
            truth_load.run(app.port, part, n)
        except RuntimeError as e:
            sys.exit(f"truth: {e}; the application said:\n{app.output()[-3000:]}")
        items += part
    seconds = time.monotonic() - begin
    time.sleep(truth.BEHIND_SECONDS)
    if not tracing:
        return None, seconds
    pids = truth.family(app.pid)
    verdict = truth.judge(tracing.finish(), pids, items, table)
    tracing.close()
    print(f"\nThe agent said:\n{tracing.agent.output()[-2500:]}", file=sys.stderr)
    return verdict, seconds


def main():
    args = arguments()
    if os.geteuid() != 0 and not args.no_agent:
        sys.exit("truth: loading BPF programs needs root")
    services.exit_on_signals()
    python = interpreter(args)
    logs = tempfile.mkdtemp(prefix="spanloom-truth-")
    os.chmod(logs, 0o755)
    try:
        with services.Stack(logs) as stack:
            verdict, seconds = measure(stack, args, python)
    finally:
        shutil.rmtree(logs, ignore_errors=True)
    what = f"Python {python.version}{' in a chroot' if args.root else ''}, {args.server}"
    if args.server in ("uvicorn", "hypercorn", "granian", "aiohttp"):
        what += f", {args.loop}" + (f" {args.uvloop}" if args.uvloop else "")
        what += f", {args.http}" if args.server == "uvicorn" else ""
    if not verdict:
        print(f"{what}: {seconds:.1f} s without an agent")
        return 0
    text = verdict.markdown()
    print(f"\n{what}, {args.connections} connections, {verdict.requests} requests in {seconds:.0f} s:\n")
    print(text.rsplit("\n", 1)[-1] if args.quiet else text)
    for line in verdict.problems():
        print("  " + line, file=sys.stderr)
    return 1 if verdict.total("wrong") else 0


if __name__ == "__main__":
    sys.exit(main())
