"""From configuration keys to the address of the ensemble, and what is said where that fails."""

from __future__ import annotations

import subprocess
import sys

import pytest

from trioq.cluster.connect import address_of
from trioq.config import BrokerConfig
from trioq.errors import ConfigError
from trioq.metastore.zookeeper_address import ZooKeeperAddress


def address(**settings: str) -> ZooKeeperAddress:
    values = {name.replace("_", "."): value for name, value in settings.items()}
    return address_of(BrokerConfig.from_mapping({"metastore": "zookeeper://a:1,b/x"} | values))


def test_a_broker_waits_for_zookeeper_as_long_as_a_session_lasts_unless_told_otherwise():
    assert address() == ZooKeeperAddress("a:1,b:2181", "/x", 18.0, 18.0)
    assert address(zookeeper_session_timeout_ms="9000") == ZooKeeperAddress(
        "a:1,b:2181", "/x", 9.0, 9.0
    )
    waiting = address(zookeeper_connection_timeout_ms="500")
    assert (waiting.session_timeout_s, waiting.connect_timeout_s) == (18.0, 0.5)


def test_tls_and_the_files_for_it():
    found = address(
        zookeeper_ssl_client_enable="true",
        zookeeper_ssl_ca_location="ca.pem",
        zookeeper_ssl_certificate_location="cert.pem",
        zookeeper_ssl_key_location="key.pem",
    )
    assert found.use_tls
    assert (found.ca_file, found.certificate_file, found.key_file) == (
        "ca.pem",
        "cert.pem",
        "key.pem",
    )


def test_a_password_is_the_first_line_of_its_file(tmp_path):
    file = tmp_path / "password"
    file.write_text("hush\nwhat else\n")
    found = address(zookeeper_user="trioq", zookeeper_password_file=str(file))
    assert (found.user, found.password) == ("trioq", "hush")
    assert address(zookeeper_user="trioq", zookeeper_password="loud").password == "loud"
    file.write_text("\n")
    with pytest.raises(ConfigError, match="has no password in its first line"):
        address(zookeeper_user="trioq", zookeeper_password_file=str(file))
    with pytest.raises(ConfigError, match=r"zookeeper\.password\.file=/no/where cannot be read"):
        address(zookeeper_user="trioq", zookeeper_password_file="/no/where")


def test_without_kazoo_a_cluster_says_what_to_install(tmp_path):
    script = (
        "import sys; sys.modules['kazoo'] = None\n"
        "from trioq.cli.app import trioq\n"
        f"trioq(['serve', '--data-dir', {str(tmp_path)!r}, '--listen', '127.0.0.1:0',"
        " '--metastore', 'zookeeper://127.0.0.1:1'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "trioq: metastore=zookeeper://127.0.0.1:1 needs kazoo: pip install 'trioq[zookeeper]'"
    ]
