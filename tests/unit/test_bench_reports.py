"""What the bench says: tables, comparisons, verdicts, plots; and that one tiny run works."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench import compare, growth
from bench.__main__ import COMMANDS, main
from bench.client.command import CONSUMING, PRODUCING, measured, measured_reading
from bench.client.command import Figures as ClientFigures
from bench.client.command import figures_table as figures_of_clients
from bench.errors import BenchError
from bench.figures.command import figures_table
from bench.figures.targets import CHECKS, FETCH, LARGE, SMALL, Figures, judge
from bench.histogram import Histogram
from bench.micro.cases import cases as micro_cases
from bench.path import client
from bench.path.ask import Asker
from bench.path.client import ClientWork
from bench.path.command import CLIENT_WORK
from bench.path.loadgen import Load
from bench.path.measure import Measured, measure, started
from bench.path.verify import verify
from bench.path.work import CASES, Work
from bench.peers import trioq as trioq_peer
from bench.peers.registry import PEERS
from bench.plots import plot_rows
from bench.report import Row, path_table, row_of, table, write_report
from trioq.cli.bench import NoSuiteError, suite_root

LINUX = pytest.mark.skipif("sys.platform != 'linux'", reason="epoll, timerfd, sendfile")


def load(rate=1000.0, cpu_us=10.0):
    histogram = Histogram([[1_000, 3]])
    return Load(
        rate, rate, rate * 100, cpu_us, 1.0, 0.5, 0.2, 1.0, 2.0, 3.0, 4.0, 0, 10, 10, histogram
    )


def row(case, subject, **figures):
    return Row(case, subject, {}, [figures], Histogram())


def report(path, *rates, settings=None, case="case"):
    rows = [row_of(case, "trioq", Work(), [Measured(load(rate), None, True) for rate in rates])]
    write_report(path, "path", {"cores": 2, "time": path.name}, settings or {}, rows)
    return path


# ---- reports and comparison


def test_rows_have_medians_and_all_latencies():
    found = row_of("c", "s", Work(), [Measured(load(rate), None, True) for rate in (1, 5, 3)])
    assert found.medians["requests_per_s"] == 3
    assert found.latency.total == 9
    assert found.notes == ()
    assert "histogram" not in found.runs[0]


def test_what_was_easier_for_a_peer_is_noted():
    (note,) = row_of("c", "s", Work(), [Measured(load(), None, False)]).notes
    assert "without producer ids" in note
    (note,) = row_of("c", "s", Work("fetch", record_bytes=1), [Measured(load(), None, True)]).notes
    assert "whatever is asked for" in note


def test_tables_line_up():
    assert table(("a", "bb"), [("long one", "1"), ("x", "222")]).splitlines() == [
        "a          bb",
        "long one    1",
        "x         222",
    ]
    assert "case" in path_table([])


def test_comparison_shows_what_has_changed(tmp_path):
    before = report(tmp_path / "a.json", 100, 110, 120, settings={"flush.policy": "os"})
    after = report(tmp_path / "b.json", 50, 60, 70)
    text = compare.compared(compare.read_report(before), compare.read_report(after))
    assert "settings flush.policy: os in A, None in B" in text
    (line,) = [line for line in text.splitlines() if "req/s" in line]
    assert line.split() == ["case", "trioq", "req/s", "110", "60", "0.55", "!"]
    assert "time" not in text


def test_comparison_of_overlapping_runs_gives_no_verdict(tmp_path):
    before, after = report(tmp_path / "a.json", 100, 120), report(tmp_path / "b.json", 110, 130)
    text = compare.compared(compare.read_report(before), compare.read_report(after))
    (line,) = [line for line in text.splitlines() if "req/s" in line]
    assert line.split()[-1] == "1.09"


def test_comparison_names_what_only_one_has(tmp_path):
    before = report(tmp_path / "a.json", 1, case="old")
    after = report(tmp_path / "b.json", 1, case="new")
    text = compare.compared(compare.read_report(before), compare.read_report(after))
    assert "only in A: old, trioq" in text
    assert "only in B: new, trioq" in text


def test_a_file_that_is_no_report_is_one_sentence(tmp_path, capsys):
    (tmp_path / "x.json").write_text("[1]")
    assert main(["compare", str(tmp_path / "x.json"), str(tmp_path / "y.json")]) == 1
    assert capsys.readouterr().err == f"bench: {tmp_path}/x.json is no report of this bench\n"


def test_plots_are_drawn_from_a_report(tmp_path):
    pytest.importorskip("matplotlib")
    rows = []
    for number, rate in [(1, 0.0), (100, 0.0), (1, 500.0), (1, 1000.0)]:
        work = Work(records=number, rate=rate)
        rows.append(row_of("c", "trioq", work, [Measured(load(), None, True)]).described())
    assert [path.name for path in plot_rows(rows, tmp_path)] == [
        "throughput-by-batch-size.png",
        "latency-percentiles.png",
        "latency-by-rate.png",
    ]
    assert plot_rows([], tmp_path) == []


# ---- targets


def verdict_of(figures, case, figure):
    (found,) = [
        one for one in judge(figures) if (one.check.case, one.check.figure) == (case, figure)
    ]
    return found


def test_a_target_is_a_share_of_what_the_floor_reached():
    rows = [row(LARGE, "trioq", bytes_per_s=80e6), row(LARGE, "floor", bytes_per_s=100e6)]
    first = judge(Figures(rows))[0]
    assert (first.value, first.limit, first.is_met) == (80e6, 80e6, True)
    assert first.beside == {"floor": 100e6}


def test_every_peer_has_to_be_beaten():
    rows = [
        row(FETCH, "trioq", bytes_per_s=2.0),
        row(FETCH, "tansu", bytes_per_s=3.0),
        row(FETCH, "kafka", bytes_per_s=1.0),
        row(FETCH, "floor", bytes_per_s=9.0),
    ]
    against_peers = [one for one in judge(Figures(rows)) if one.check.limit.shown == "every peer"]
    assert [one.is_met for one in against_peers if one.check.case == FETCH] == [False]


def test_what_was_not_measured_is_neither_met_nor_missed():
    found = verdict_of(Figures([row(SMALL, "trioq", requests_per_s=5.0)]), SMALL, "requests_per_s")
    assert found.is_met is None
    assert "?" in figures_table([found], ["mock"])


def test_missed_targets_stand_out():
    rows = [row(SMALL, "trioq", broker_cpu_us_per_request=12.5)]
    found = verdict_of(Figures(rows), SMALL, "broker_cpu_us_per_request")
    assert figures_table([found], []).splitlines()[1].split()[-4:] == ["12.5", "<=", "12", "MISSED"]


def test_each_target_names_a_case_that_is_measured():
    path_cases = {check.case for check in CHECKS} & set(CASES)
    assert path_cases == set(CASES)
    groups = {one.group for one in micro_cases()}
    micro = {check.case for check in CHECKS if check.figure == "seconds_per_call"}
    assert micro <= groups


# ---- growth


@pytest.mark.parametrize(
    ("medians", "is_idle", "said"),
    [
        ({1: 10.0, 5000: 11.0}, True, "level"),
        ({1: 10.0, 5000: 20.0}, True, "GROWS x 2.00"),
        ({1: 10.0, 10: 90.0, 100: 800.0}, False, "not above linear"),
        ({1: 10.0, 10: 90.0, 100: 1000.0}, False, "FASTER than linear from 10 to 100"),
        ({1: 1.0}, True, "?"),
    ],
)
def test_growth(medians, is_idle, said):
    assert growth.verdict(medians, is_idle=is_idle) == said


# ---- micro


def test_micro_cases_run():
    for case in micro_cases():
        case.call()
    assert len({case.name for case in micro_cases()}) == len(micro_cases())


# ---- commands


def test_commands_explain_themselves(capsys):
    for command in COMMANDS:
        with pytest.raises(SystemExit, match="0"):
            main([command, "--help"])
        assert command in capsys.readouterr().out


def test_peers_say_why_they_are_absent(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    monkeypatch.setattr("shutil.which", lambda _name: None)
    for peer in PEERS:
        if peer.name == "kafka":
            peer.absent.cache_clear()
            assert peer.absent() == "Java is not installed (17 or newer is needed)"
            peer.absent.cache_clear()
        elif peer.name != "trioq":
            assert "not installed" in peer.absent()


def test_an_installed_package_says_where_the_suite_is(tmp_path):
    with pytest.raises(NoSuiteError, match="comes with trioq's source"):
        suite_root(tmp_path / "trioq")
    assert (suite_root(Path(sys.modules["trioq"].__file__).parent) / "bench").is_dir()


def test_trioq_bench_runs_the_suite(tmp_path):
    """From whatever directory, with the arguments as they are."""
    done = subprocess.run(
        [sys.executable, "-m", "trioq.cli", "bench", "compare", "a.json", "b.json"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("bench: a.json cannot be read")


# ---- one tiny run


@LINUX
@pytest.mark.e2e
def test_a_tiny_run_is_measured_checked_and_written(tmp_path, capsys):
    out = tmp_path / "report.json"
    arguments = ["path", "--connections", "2", "--partitions", "2", "--record-bytes", "10"]
    arguments += ["--batch-bytes", "50", "--runs", "1", "--seconds", "0.2", "--warmup", "0.1"]
    assert main([*arguments, "--json", str(out)]) == 0
    assert "records read back and checked" in capsys.readouterr().out
    written = json.loads(out.read_text())
    (found,) = written["rows"]
    assert found["work"]["records"] == 5
    assert found["median"]["requests_per_s"] > 0
    assert Histogram(found["latency"]).total > 0
    assert written["failures"] == {}
    assert written["machine"]["packages"]["trio"]


@LINUX
@pytest.mark.e2e
def test_open_loop_fetch_and_a_lost_record():
    """A fixed rate is kept, 1 record fetches are whole, and verification sees what is missing."""
    with started(trioq_peer.PEER, {}) as broker:
        work = Work(rate=200.0, depth=16)
        found = measure(trioq_peer.PEER, broker, work, seconds=0.3, warmup_s=0.1, is_verified=True)
        assert found.verified is not None
        assert found.verified.records == found.load.acknowledged == found.load.sent
        assert found.load.unanswered == 0
        fetched = measure(
            trioq_peer.PEER, broker, Work("fetch", fetched=3), seconds=0.1, warmup_s=0.0
        )
        assert fetched.load.requests_per_s > 0
        with Asker(broker) as asker:
            asker.create_topic("empty", 1)
            with pytest.raises(BenchError, match="0 records were read back"):
                verify(asker, "empty", work, [found.load])


@LINUX
@pytest.mark.e2e
def test_confluent_kafka_sends_batches_of_the_size_that_is_asked_for():
    with started(trioq_peer.PEER, {}) as broker, Asker(broker) as asker:
        for batch_bytes, least in [(100, 1), (1_000_000, 2)]:  # a busy machine fills them slowly
            topic = f"batches{batch_bytes}"
            asker.create_topic(topic, 1)
            asked = ClientWork("bulk", CLIENT_WORK, linger_ms=5.0, batch_bytes=batch_bytes)
            load = client.run(broker, topic, asked, seconds=0.2, warmup_s=0.1)
            assert load.unanswered == 0
            found = verify(asker, topic, CLIENT_WORK, [load])
            assert found.records == load.sent
            assert found.records / found.batches >= least


def test_the_table_of_clients_says_how_many_times_as_much():
    found = {
        "trioq send_many (trio)": ClientFigures(2_000_000.0, 4_000_000.0),
        "confluent-kafka produce": ClientFigures(500_000.0, 1_000_000.0),
        "aiokafka send": ClientFigures(50_000.0, 100_000.0),
    }
    lines = figures_of_clients(found).splitlines()
    assert lines[0].split("  ")[-1].strip() == "x aiokafka send"
    assert lines[1].split()[-5:] == ["2,000,000", "4,000,000", "0.25", "4.0", "40.0"]
    assert lines[2].split()[-1] == "1.00"


@LINUX
def test_one_short_run_of_each_client():
    tiny = [
        subject._replace(records={100: 300})
        for subject in PRODUCING
        if subject.loop in {"", "trio"}
    ]
    found = measured(tiny, 100, runs=1, share=1.0)
    assert set(found) == {subject.label for subject in tiny}
    assert all(figures.records_per_cpu_s > 0 for figures in found.values())


@LINUX
def test_one_short_run_of_each_reader():
    tiny = [
        subject._replace(records={100: 3000})
        for subject in CONSUMING
        if subject.loop in {"", "trio"}
    ]
    found = measured_reading(tiny, 100, runs=1, share=1.0)
    assert set(found) == {subject.label for subject in tiny}
    assert all(figures.records_per_cpu_s > 0 for figures in found.values())
