"""Pages made from the code are up to date, and the README tells the truth about commands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from trioq.cli import docs
from trioq.config import BROKER_KEYS, TOPIC_KEYS
from trioq.coordinator.group_phases import TRANSITIONS, GroupPhase
from trioq.wire.api_keys import APIS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", sorted(docs.pages()))
def test_generated_pages_are_up_to_date(name):
    assert (ROOT / "docs" / name).read_text() == docs.pages()[name], "run `make docs`"


@pytest.mark.parametrize("name", sorted(docs.diagrams()))
def test_diagrams_are_up_to_date(name):
    page = (ROOT / "docs" / name).read_text()
    assert docs.with_diagram(page, docs.diagrams()[name]) == page, "run `make docs`"
    assert page.count(docs.diagrams()[name]) == 1


def test_the_diagram_of_groups_has_every_transition_and_no_other():
    steps = re.findall(r"^    (\w+) --> (\w+): .+$", docs.group_diagram(), re.MULTILINE)
    allowed = [(one.value, to.value) for one, following in TRANSITIONS.items() for to in following]
    assert steps == allowed
    assert {phase for step in steps for phase in step} == {phase.value for phase in GroupPhase}


def test_diagrams_are_replaced_where_they_stand(tmp_path):
    page = tmp_path / "consumer-groups.md"
    text = (ROOT / "docs" / page.name).read_text()
    page.write_text(docs.with_diagram(text, "old\n"))
    assert docs.main([str(tmp_path)]) == 0
    assert page.read_text() == text
    with pytest.raises(ValueError, match="no place for a diagram"):
        docs.with_diagram("# Groups\n", "new")


def test_pages_name_every_key_and_every_api():
    configuration = docs.configuration_page()
    assert all(f"| `{name}` |" in configuration for name in (*BROKER_KEYS, *TOPIC_KEYS))
    protocol = docs.protocol_page()
    assert all(f"| {api.name} |" in protocol for api in APIS.values())


def test_pages_are_written_where_told(tmp_path, capsys):
    assert docs.main([str(tmp_path / "new")]) == 0
    assert {path.name for path in (tmp_path / "new").iterdir()} == set(docs.pages())
    assert docs.main([]) == 2
    assert "usage" in capsys.readouterr().err


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "CONTRIBUTING.md",
        "docs/command.md",
        "docs/consuming.md",
        "docs/getting-started.md",
        "docs/index.md",
        "docs/testing.md",
    ],
)
def test_make_targets_and_links_exist(page):
    text = (ROOT / page).read_text()
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([a-z]+)\b", text, re.MULTILINE)) <= targets
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert ((ROOT / page).parent / link).exists() or link.endswith("architecture.md"), link


def test_every_rule_that_keeps_data_has_tests_that_exist():
    from tests.sim.cluster.mutations import MUTATIONS

    section = (ROOT / "docs" / "reliability.md").read_text().rpartition("\n## Each rule")[2]
    rows = re.findall(r"^\| (\d+) \| .+? \| (.+) \|$", section, re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 20))
    broken = set()
    for tests in [*(tests for _, tests in rows), section[section.rindex("Truncation") :]]:
        where = None
        for file, name in re.findall(r"`([\w/]+\.py)?::(test_\w+)`", tests):
            where = ROOT / "tests" / file if file else where
            assert f"def {name}(" in where.read_text(), f"{where}::{name}"
        assert where is not None
        _, _, mutations = tests.partition("broken: ")
        broken |= set(re.findall(r"`(\w+)`", mutations))
    assert broken == MUTATIONS.keys() - {"unclean"}
