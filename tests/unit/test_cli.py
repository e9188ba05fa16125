"""The command line: flags, exit status, and what is said about mistakes."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

import trioq.cli.serve
from trioq import __version__
from trioq.cli.app import trioq as command
from trioq.config import BrokerConfig


@pytest.fixture
def served(monkeypatch):
    """Configurations that `trioq serve` would have run."""
    configs: list[BrokerConfig] = []

    def run(config: BrokerConfig) -> int:
        configs.append(config)
        return 0

    monkeypatch.setattr(trioq.cli.serve, "run", run)
    for variable in ("TRIOQ_CONFIG", "TRIOQ_DATA_DIR"):
        monkeypatch.delenv(variable, raising=False)
    return configs


TOP = command.list_commands(click.Context(command))


def invoke(*arguments: str, **environment: str):
    return CliRunner().invoke(command, list(arguments), env=environment, prog_name="trioq")


def test_version_and_help():
    assert invoke("--version").output == f"trioq {__version__}\n"
    for arguments in (["-h"], ["serve", "-h"], ["topic", "-h"], ["topic", "create", "--help"]):
        result = invoke(*arguments)
        assert result.exit_code == 0
        assert "Usage: " in result.output


def test_garbage_is_looked_for_again_once_all_is_imported():
    code = (
        "import gc, trioq.cli, trioq.cli.app, trioq.cli.serve, trioq.process\n"
        "trioq.process.serve = lambda _config: print('serve', gc.isenabled(), gc.get_count()[2])\n"
        "trioq.cli.app.trioq = lambda: print('main', gc.isenabled(), gc.get_count()[2])\n"
        "trioq.cli.main()\n"
        "trioq.cli.serve.run(trioq.config.BrokerConfig.from_mapping({}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "main True 0\nserve True 0\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell):
    result = invoke("completion", shell)
    assert result.exit_code == 0
    assert "_TRIOQ_COMPLETE" in result.output


def test_a_key_set_by_its_flag_and_by_set_is_refused(served):
    result = invoke("serve", "--rack", "a", "--set", "broker.rack=b")
    assert result.exit_code == 2
    assert "broker.rack is set twice: --rack and --set" in result.stderr


def test_flags_become_configuration(served):
    result = invoke(
        "serve", "--data-dir", "a", "--data-dir", "b",
        "--listen", "[::1]:0", "--listen", "0.0.0.0:1",
        "--advertised", "PLAINTEXT-2://example.org:1", "--node-id", "7", "--rack", "r1",
        "--metastore", "embedded", "--set", "num.partitions=3", "--log-level", "debug",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    (config,) = served
    assert config.log_dirs == ("a", "b")
    assert [(e.host, e.advertised_host) for e in config.endpoints()] == [
        ("::1", "::1"),
        ("0.0.0.0", "example.org"),
    ]
    assert (config.node_id, config.broker_rack, config.num_partitions) == (7, "r1", 3)
    assert config.logging_level == "debug"
    assert config.origin_of("node.id") == "--node-id"


def test_precedence(served, tmp_path):
    file = tmp_path / "broker.toml"
    file.write_text("node.id = 2\nnum.partitions = 2\nlog.segment.bytes = 2000")
    result = invoke(
        "serve", "--config", str(file), "--node-id", "4",
        TRIOQ_NODE_ID="3", TRIOQ_NUM_PARTITIONS="3",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    (config,) = served
    assert (config.node_id, config.num_partitions, config.log_segment_bytes) == (4, 3, 2000)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--set", "num.partitons=3"], "did you mean num.partitions?"),
        (["--set", "num.partitions"], "allowed is KEY=VALUE"),
        (["--set", "num.partitions=0"], "allowed is an integer from 1"),
        (["--set", "node.id=1", "--set", "node.id=2"], "sets node.id twice"),
        (["--node-id", "one"], "set by --node-id"),
        (["--listen", "0.0.0.0:9092"], "--advertised HOST:PORT"),
        (["--listen", "localhost"], "HOST:PORT"),
        (["--metastore", "etcd"], "allowed is embedded or zookeeper://"),
        (["--log-level", "loud"], "one of debug, info, warning, error"),
        (["--config", "/no/such/file.toml"], "/no/such/file.toml cannot be read"),
        (["--no-such-flag"], "No such option"),
    ],
)
def test_mistakes_are_one_sentence_and_status_2(served, arguments, expected):
    result = invoke("serve", *arguments)
    assert result.exit_code == 2
    assert expected in result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert not served


COMMANDS = [
    ["produce"], ["consume"], ["serve"], ["bench"], ["completion"],
    ["topic"], ["topic", "create"], ["topic", "list"], ["topic", "describe"], ["topic", "alter"],
    ["topic", "delete"], ["group"], ["group", "list"], ["group", "describe"],
    ["group", "reset-offsets"], ["group", "delete"], ["cluster"], ["cluster", "describe"],
    ["cluster", "drain"], ["cluster", "rebalance"], ["cluster", "elect-leaders"],
    ["config"], ["config", "describe"], ["config", "alter"], ["log"], ["log", "dump"],
    ["dev-cluster"],
]  # fmt: skip


def test_help_imports_neither_a_client_nor_a_loop():
    """What `trioq --help` costs is its imports."""
    script = (
        "import sys\n"
        "from click.testing import CliRunner\n"
        "from trioq.cli.app import trioq\n"
        f"for command in {[[], *(c for c in COMMANDS if c != ['bench'])]}:\n"
        "    result = CliRunner().invoke(trioq, [*command, '--help'])\n"
        "    assert result.exit_code == 0 and 'Usage: ' in result.output, command\n"
        "heavy = {'trio', 'anyio', 'rich', 'cramjam', 'zstandard', 'asyncio', 'structlog'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "ours = {name for name in sys.modules if name.startswith('trioq.client')}\n"
        "assert ours <= {'trioq.client', 'trioq.client.address'}, ours\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


def test_every_command_has_its_help_tested():
    commands = {name: command.get_command(click.Context(command), name) for name in TOP}
    assert {one[0] for one in COMMANDS} == set(TOP)
    for name, group in commands.items():
        if isinstance(group, click.Group) and name != "log":
            assert {one[1] for one in COMMANDS if one[0] == name and len(one) == 2} == set(
                group.commands
            )


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("trioq ", {"produce", "consume", "group"}),
        ("trioq group re", {"reset-offsets"}),
        ("trioq produce --com", {"--compression"}),
        ("trioq produce --compression z", {"zstd"}),
        ("trioq config describe ", {"topic", "broker"}),
    ],
)
def test_what_a_shell_completes(typed, expected):
    words = typed.split(" ")
    result = invoke(
        _TRIOQ_COMPLETE="bash_complete", COMP_WORDS=typed, COMP_CWORD=f"{len(words) - 1}"
    )
    assert expected <= {line.partition(",")[2] for line in result.output.splitlines()}


def test_serving_wrong_flags_imports_no_broker():
    script = (
        "import sys\n"
        "from trioq.cli import main\n"
        "sys.argv = ['trioq', 'serve', '--set', 'x=1']\n"
        "try: main()\n"
        "except SystemExit as exit: assert exit.code == 2, exit.code\n"
        "heavy = {'trio', 'rich', 'cramjam', 'zstandard', 'kazoo', 'asyncio', 'structlog'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == "trioq: x is not a broker configuration key\n"
