"""Keeps tests and the cases of SPEC section 8 together: each test names its cases, and one option lists them.

An auditor asks which test proves what; the answer must not depend on anyone's memory, so a test without a case fails
the collection.
"""

from __future__ import annotations

from collections import Counter

import pytest

from tests.support.cases import CASES


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--list-cases``."""
    parser.addoption("--list-cases", action="store_true", help="list each test case with its tests; runs none")


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers, and leave the long tests out unless ``-m`` says otherwise."""
    config.addinivalue_line("markers", "case(*ids): the cases of SPEC section 8 that this test covers")
    config.addinivalue_line("markers", "soak: takes minutes; only run by `-m soak`")
    if not config.option.markexpr and not config.option.list_cases:
        config.option.markexpr = "not soak"


@pytest.hookimpl(tryfirst=True)  # before -m deselects: a soak test needs its case too
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse tests that name no case, or one that the specification does not have."""
    faults = []
    for item in items:
        named = _cases_of(item)
        if not named:
            faults.append(f"{item.nodeid}: no @pytest.mark.case")
        faults += [f"{item.nodeid}: unknown case {case!r}" for case in named if case not in CASES]
    if faults:
        raise pytest.UsageError("every test names its cases of SPEC section 8 (tests/support/cases.py):", *faults)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """With ``--list-cases``, print the list in place of running anything."""
    if not session.config.option.list_cases:
        return None
    covering = {case: Counter[str]() for case in CASES}
    for item in session.items:
        for case in _cases_of(item):
            covering[case][item.nodeid.partition("[")[0]] += 1
    write = session.config.pluginmanager.getplugin("terminalreporter").write_line
    for case, tests in covering.items():
        write(f"{case}  {CASES[case]}")
        for test, variants in tests.items() or [("not yet covered", 1)]:
            write(f"    {test}" + (f"  ({variants} variants)" if variants > 1 else ""))
    open_cases = [case for case, tests in covering.items() if not tests]
    write(f"{len(CASES) - len(open_cases)} of {len(CASES)} cases covered; open: {', '.join(open_cases) or 'none'}")
    return True


def _cases_of(item: pytest.Item) -> set[str]:
    return {case for marker in item.iter_markers("case") for case in marker.args}
