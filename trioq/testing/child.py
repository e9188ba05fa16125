"""The process of a SubprocessBroker: `python -m trioq.testing.child '{"node.id": "1", ...}'`.

Standard input is a pipe from the process that wants the broker: at its end the broker is killed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading

from trioq import logs
from trioq.config import BrokerConfig


def main() -> int:
    """Serve by the configuration in the first argument; the exit status."""
    threading.Thread(target=_die_with_parent, name="parent watch", daemon=True).start()
    config = BrokerConfig.from_mapping(json.loads(sys.argv[1]))
    logs.configure(config.logging_level)
    from trioq.process import serve  # noqa: PLC0415  a wrong configuration needs no broker

    return serve(config)


def _die_with_parent() -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
