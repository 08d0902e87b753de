"""An agent of a test, exporting to a strict receiver of its own.

Owns: the agent's way of being started and ended. Invariant: spans are given only after the agent has ended, so none can be
on its way.
"""
import re

from otlp_receiver import OtlpReceiver
from seen import view


class Tracing:
    """An agent that exports to a receiver of its own."""

    def __init__(self, stack, protocol):
        self.stack, self.protocol, self.agent = stack, protocol, None
        self.receiver = OtlpReceiver()

    def start(self, *args, pids=(), env=None, **kw):
        grpc = self.protocol == "grpc"
        port = self.receiver.grpc_port if grpc else self.receiver.http_port
        full_env = {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
                    "OTEL_EXPORTER_OTLP_PROTOCOL": self.protocol, "OTEL_BSP_MAX_QUEUE_SIZE": 400000,
                    "OTEL_BSP_SCHEDULE_DELAY": 200, "SPANLOOM_SHUTDOWN_TIMEOUT": 30000, **(env or {})}
        for pid in pids:
            args += ("--pid", str(pid))
        self.agent = self.stack.spanloom(*args, env=full_env, **kw)
        return self.agent

    def finish(self):
        """Ends the agent and gives all spans that it made; fails when one broke a rule of OTLP, or was lost."""
        code = self.agent.stop(timeout=40)
        assert code == 0, f"the agent ended with {code}:\n{self.agent.output()}"
        assert not self.receiver.errors, self.receiver.errors[:10]
        assert "AddressSanitizer" not in self.agent.output()
        return view(self.receiver)

    def drops(self):
        """{reason: count} of the agent's summary."""
        return {name: int(n) for name, n in re.findall(r"\b([a-z]+(?:_[a-z]+)+)[ :=]+(\d+)\b", self.agent.output())}

    def close(self):
        self.receiver.close()
