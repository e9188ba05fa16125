"""Apache Kafka in KRaft mode, one node, its own defaults; fetched with Maven into the cache."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Final

from bench.errors import BenchError
from bench.path.process import BrokerProcess, free_port, running, wait_for_port
from bench.peers.peer import Peer, Settings
from bench.programs import cache_dir

VERSION: Final = "4.1.0"
DOWNLOAD_TIMEOUT_S: Final = 600

POM: Final = f"""\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>trioq.bench</groupId>
  <artifactId>kafka</artifactId>
  <version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>{VERSION}</version>
    </dependency>
  </dependencies>
</project>
"""

HEAP: Final = ("-Xms1g", "-Xmx1g")
JVM: Final = (
    "-server",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
    "-Djava.awt.headless=true",
)
"""What Kafka's own start script gives the JVM."""

CLUSTER_ID: Final = "dHJpb3EtYmVuY2gtMDAwMQ"


def properties(directory: Path, port: int, controller_port: int) -> str:
    """The least that one node needs; everything else is Kafka's default."""
    return "\n".join(
        (
            "process.roles=broker,controller",
            "node.id=1",
            f"controller.quorum.voters=1@127.0.0.1:{controller_port}",
            f"listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
            f"advertised.listeners=PLAINTEXT://127.0.0.1:{port}",
            "controller.listener.names=CONTROLLER",
            f"log.dirs={directory / 'data'}",
            "offsets.topic.replication.factor=1",
            "",
        )
    )


@contextmanager
def start(directory: Path, settings: Settings) -> Iterator[BrokerProcess]:  # noqa: ARG001
    """Format the storage, then run the broker and wait until it accepts connections."""
    port = free_port()
    config, log_path = directory / "server.properties", directory / "kafka.log"
    config.write_text(properties(directory, port, free_port()))
    java = ["java", *HEAP, *JVM, "-cp", f"{libraries()}/*"]
    formatting = [*java, "kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", str(config)]
    done = subprocess.run(formatting, cwd=directory, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"Kafka's storage cannot be formatted: {done.stdout}{done.stderr}")
    started = time.perf_counter()
    with running([*java, "kafka.Kafka", str(config)], log_path) as process:
        wait_for_port(process, port, log_path)
        ready_s = time.perf_counter() - started
        yield BrokerProcess("127.0.0.1", port, process.pid, ready_s, directory / "data")


@cache
def absent() -> str:
    """It needs Java 17 or newer, and Maven at the first run."""
    if shutil.which("java") is None:
        return "Java is not installed (17 or newer is needed)"
    said = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False).stderr
    version = said.partition('"')[2].partition(".")[0]
    if not version.isdigit() or int(version) < 17:
        return f"Java 17 or newer is needed, not {version or 'what is installed'}"
    if not libraries().is_dir():
        return _download()
    return ""


def libraries() -> Path:
    """The jars of this version; the directory is there only when it is complete."""
    return cache_dir() / f"kafka-{VERSION}"


def _download() -> str:
    """Resolve Kafka and what it depends on; why that did not work, or nothing."""
    maven = shutil.which("mvn")
    if maven is None:
        return "Maven, which fetches it, is not installed"
    partial = cache_dir() / f"kafka-{VERSION}.{os.getpid()}"
    partial.mkdir()
    try:
        (partial / "pom.xml").write_text(POM)
        command = [maven, "-q", "-B", "dependency:copy-dependencies", "-DincludeScope=runtime"]
        done = subprocess.run(
            [*command, f"-DoutputDirectory={partial / 'libs'}"],
            cwd=partial,
            capture_output=True,
            text=True,
            check=False,
            timeout=DOWNLOAD_TIMEOUT_S,
        )
        if done.returncode:
            reason = (done.stdout.strip().splitlines() or ["no reason given"])[0]
            return f"Maven cannot fetch it: {reason[:200]}"
        (partial / "libs").rename(libraries())
    except subprocess.TimeoutExpired:
        return f"Maven did not fetch it within {DOWNLOAD_TIMEOUT_S} s"
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return ""


PEER = Peer("kafka", start, absent, lambda: VERSION, is_kept=True)
