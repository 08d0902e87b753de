#!/usr/bin/env python3
"""The proof of the joins, from the command line: a gateway and an agent service under load, where each call carries an id;
afterwards every span of a call is compared with what its callee received. Prints the table as Markdown.

    sudo build/venv/bin/python tests/bench/chain_truth.py --gateway asyncio --propagate off --requests 20000

Owns: the services around it. The exit code is 1 when anything is wrong, and 2 when something is missing.
"""
import argparse
import os
import shutil
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "..", "tools"))
sys.path.insert(0, os.path.join(HERE, "..", "e2e"))
import chain  # noqa: E402
import services  # noqa: E402
from tracing import Tracing  # noqa: E402

GATEWAYS = ("uvloop", "asyncio", "gthread", "sync")


def arguments():
    p = argparse.ArgumentParser(description="Compares the spans of all calls between two services with the truth.")
    p.add_argument("--gateway", default="uvloop", choices=GATEWAYS, help="event loop or gunicorn worker of the gateway")
    p.add_argument("--callee", default="uvloop", choices=("uvloop", "asyncio", "gthread", "sync", "stdlib", "go", "node"))
    p.add_argument("--proxy", action="store_true", help="nginx between the client and the gateway")
    p.add_argument("--connections", type=int, default=64)
    p.add_argument("--requests", type=int, default=20000)
    p.add_argument("--routes", default=",".join(chain.ROUTES))
    p.add_argument("--propagate", default="off")
    p.add_argument("--warm", type=int, default=200, help="requests before, of which none is compared")
    p.add_argument("--no-agent", action="store_true", help="the load alone")
    p.add_argument("agent", nargs="*", help="behind --: arguments for the agent")
    return p.parse_args()


def start(stack, args):
    """(the client's port, gateway, agent service)"""
    redis = stack.redis()
    env = {"REDIS_PORT": redis.port}
    if args.callee in ("uvloop", "asyncio"):
        agent = chain.start_callee(stack, "uvicorn", env, loop=args.callee)
    else:
        agent = chain.start_callee(stack, args.callee, env)
    env["AGENT_URL"] = f"http://127.0.0.1:{agent.port}"
    if args.gateway in ("gthread", "sync"):
        app = stack.python_app("chain_flask", server=args.gateway, workers=2, env=env)
    else:
        app = stack.uvicorn("chain_gateway", env=env, loop=args.gateway)
    app.pids = set(chain.family(app.pid))
    web = chain.nginx(stack, f"127.0.0.1:{app.port}") if args.proxy else None
    return (web or app).port, [s for s in (web, app, agent) if s], app, agent


def measure(stack, args):
    """(Verdict or None, seconds of the load)"""
    port, traced, app, agent = start(stack, args)
    routes = tuple(args.routes.split(","))
    tracing = None if args.no_agent else Tracing(stack, "grpc")
    if tracing:
        chain.start(tracing, f"--propagate={args.propagate}", *args.agent, pids=[s.pid for s in traced])
    chain.run(port, chain.paths("warm", args.warm, routes), 8)
    begin = time.monotonic()
    answers = chain.run(port, chain.paths("r", args.requests, routes), args.connections)
    seconds = time.monotonic() - begin
    if not tracing:
        return None, seconds
    verdict = chain.judge(tracing.finish(), answers, agent.pids, app.pids)
    tracing.close()
    print(f"\nThe agent said:\n{tracing.agent.output()[-2500:]}", file=sys.stderr)
    return verdict, seconds


def main():
    args = arguments()
    if os.geteuid() != 0 and not args.no_agent:
        sys.exit("chain_truth: loading BPF programs needs root")
    services.exit_on_signals()
    logs = tempfile.mkdtemp(prefix="spanloom-chain-")
    os.chmod(logs, 0o755)
    try:
        with services.Stack(logs) as stack:
            verdict, seconds = measure(stack, args)
    finally:
        shutil.rmtree(logs, ignore_errors=True)
    what = (f"{'nginx, ' if args.proxy else ''}gateway {args.gateway}, agent service {args.callee}, --propagate={args.propagate}, "
            f"{args.connections} connections, {args.requests} requests in {seconds:.0f} s")
    if not verdict:
        print(f"{what}, without an agent")
        return 0
    print(f"\n{what}:\n\n{verdict.markdown()}")
    for line in verdict.problems():
        print("  " + line, file=sys.stderr)
    return 1 if verdict.total("wrong") else 2 if verdict.problems() else 0


if __name__ == "__main__":
    sys.exit(main())
