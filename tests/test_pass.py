"""The native pass against its specification: any dtype, size, thread count, instruction set, caller."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest
import values
from hypothesis import given, settings
from hypothesis import strategies as st

from gradtail import Summary, backends, summarize
from gradtail.buffers import views_of
from gradtail.states.table import RECORD, SummaryTable

BITS = st.sampled_from([0, 4, 7, 10])


def test_the_record_layout_is_that_of_the_extension(core):
    assert RECORD.itemsize == core.record_size


@settings(max_examples=150)
@given(values.arrays(), BITS)
def test_native_equals_the_specification(core, x, bits):
    native, spec = (summarize(x, bits=bits, backend=b) for b in ("native", "numpy"))
    values.assert_same(native, spec, 1e-6, x)


@given(values.arrays(), BITS)
def test_native_equals_the_specification_at_every_level(simd, x, bits):
    native, spec = (summarize(x, bits=bits, backend=b) for b in ("native", "numpy"))
    values.assert_same(native, spec, 1e-6, x)


@pytest.mark.parametrize("kind", values.KINDS)
@pytest.mark.parametrize("dtype", values.DTYPES)
def test_native_equals_the_specification_in_every_case(core, dtype, kind):
    for size in values.SIZES:
        x = values.make(dtype, size, kind, size)
        for bits in (4, 10) if size in (997, 65537) else (4,):
            native, spec = (summarize(x, bits=bits, backend=b) for b in ("native", "numpy"))
            values.assert_same(native, spec, 1e-6, x)


def test_bits_may_change_from_call_to_call(core):
    x = values.make("float32", 10_007, "finite", 1)
    for bits in (10, 0, 7, 4, 9, 1, 10, 4):
        native, spec = (summarize(x, bits=bits, backend=b) for b in ("native", "numpy"))
        values.assert_same(native, spec, 1e-6, x)


def _small_tensors():
    rng = np.random.default_rng(4)
    dtypes, kinds = list(values.DTYPES), ("normal", "patterns", "channel", "sparse")
    return [values.make(dtypes[i % 4], int(rng.integers(0, 1200)), kinds[i // 4 % 4], i) for i in range(500)]


@pytest.mark.parametrize(
    ("case", "bits"), [*((name, 4) for name in (*values.DTYPES, "small tensors", "mixed")), ("mixed", 7)]
)
def test_the_bits_do_not_depend_on_the_number_of_threads(threads, case, bits):
    if case == "small tensors":
        x = _small_tensors()
        assert sum(a.size for a in x) > 1 << 17
    elif case == "mixed":
        x = [values.make(d, 100_001, "patterns", 3) for d in values.DTYPES] + [np.empty(0), np.ones(1)]
    else:
        x = values.make(case, 500_011, "shifted", 9)
        x[::70_001] = np.nan
    threads(1)
    one = summarize(x, bits=bits, backend="native")
    values.assert_same(
        one, summarize(x, bits=bits, backend="numpy"), 1e-6, *(x if isinstance(x, list) else [x])
    )
    for n in (2, 3, 7):
        threads(n)
        assert summarize(x, bits=bits, backend="native") == one, n


def test_rows_of_a_table_are_kept_apart_by_any_number_of_threads(threads):
    arrays = [values.make("float32", n, "finite", n) for n in (5, 200_000, 0, 70_000, 1, 300_001)]
    rows = [0, 1, 2, 1, 3, 0]
    expected = SummaryTable.empty(4, 4)
    for table, n in ((expected, 1), (SummaryTable.empty(4, 4), 2), (SummaryTable.empty(4, 4), 5)):
        threads(n)
        views = views_of(arrays)
        views.table["row"] = rows
        backends.resolve("native").summarize(views, table)
        assert table.records.tobytes() == expected.records.tobytes()
        np.testing.assert_array_equal(table.counts, expected.counts)
    spec = SummaryTable.empty(4, 4)
    backends.resolve("numpy").summarize(views, spec)
    for row in range(4):
        native, other = (
            Summary.from_parts(t.records[row : row + 1], t.counts[row], t.bits) for t in (expected, spec)
        )
        values.assert_same(native, other, 1e-6, *(a for a, r in zip(arrays, rows, strict=True) if r == row))


def _filled(seed, backend="numpy"):
    table = SummaryTable.empty(5, 4)
    kinds = ("patterns", "zeros", "subnormal", "normal")
    arrays = [values.make("float64" if i == 3 else "float32", 300, kinds[i], seed + i) for i in range(4)]
    views = views_of(arrays)
    views.table["row"] = range(4)  # the fifth row stays empty
    backends.resolve(backend).summarize(views, table)
    return table


def test_fold_and_clear_of_tables(backend):
    work, spec = backends.resolve(backend), backends.resolve("numpy")
    into, other, expected = _filled(1), _filled(50), _filled(1)
    work.fold(into, other)
    spec.fold(expected, other)
    np.testing.assert_array_equal(into.counts, expected.counts)
    for name in RECORD.names:
        np.testing.assert_allclose(into.records[name], expected.records[name], rtol=1e-14, err_msg=name)
    before = other.records.tobytes()
    assert before == _filled(50).records.tobytes(), "fold changed its second argument"
    empty = SummaryTable.empty(5, 4)
    work.clear(into)
    assert into.records.tobytes() == empty.records.tobytes()
    assert not into.counts.any()
    work.fold(into, other)
    np.testing.assert_array_equal(into.counts, other.counts)


def test_a_pass_after_clear_equals_a_first_one(backend):
    work, table, fresh = backends.resolve(backend), _filled(1, backend), SummaryTable.empty(5, 4)
    work.clear(table)
    views = views_of(values.make("float32", 5000, "normal", 1))
    for t in (table, fresh):
        work.summarize(views, t)
    assert table.records.tobytes() == fresh.records.tobytes()
    np.testing.assert_array_equal(table.counts, fresh.counts)


def test_two_callers_at_once(backend):
    arrays = [values.make("float32", 400_003, "shifted", i) for i in range(2)]
    expected = [summarize(x, backend=backend) for x in arrays]
    wrong = _together(lambda i: summarize(arrays[i], backend=backend) == expected[i], rounds=15)
    assert not wrong


def test_the_team_may_change_while_others_work(threads):
    """Shares were once cut for one team and run by a smaller one."""
    x = values.make("float32", 1_000_003, "normal", 1)
    threads(4)
    expected = summarize(x, backend="native")

    def call(i):
        if i == 0:
            return summarize(x, backend="native") == expected
        for n in (1, 6, 2, 4):
            threads(n)
        return True

    assert not _together(call, rounds=40)


def test_a_number_of_threads_below_one_is_one(core, threads):
    x = values.make("float32", 300_000, "normal", 1)
    expected = summarize(x, backend="native")
    for n in (0, -3):
        threads(n)
        assert core.num_threads() == 1
        assert summarize(x, backend="native") == expected


def test_an_unknown_instruction_set_is_refused(core):
    before = core.simd()
    with pytest.raises(ValueError, match=r"^level: expected one that this machine can run, got mmx"):
        core.set_simd("mmx")
    assert core.simd() == before


def _together(call, rounds):
    wrong = []
    barrier = threading.Barrier(2)

    def work(i):
        barrier.wait()
        try:
            wrong.extend(i for _ in range(rounds) if not call(i))
        except Exception as error:  # a thread would lose it
            wrong.append(error)

    team = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for t in team:
        t.start()
    for t in team:
        t.join()
    return wrong


FORK = """
    import os, signal, sys
    import numpy as np
    from gradtail import summarize

    signal.alarm(60)  # a hang is a failure
    x = np.random.default_rng(0).standard_normal(1_000_003).astype(np.float32)
    before = summarize(x)  # the team of threads exists now
    child = os.fork()
    if child == 0:
        signal.alarm(45)
        {work}
        sys.exit(0)  # an ordinary exit, with all destructors
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert summarize(x) == before
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize(
    "work", ["pass", "assert summarize(x) == before", "summarize(x); assert summarize([x, x]).count"]
)
def test_a_forked_child_works_and_ends(work):
    # Its own interpreter: from 3.12 on, forking a process with threads warns.
    environment = {**os.environ, "GRADTAIL_NUM_THREADS": "3"}
    script = textwrap.dedent(FORK).format(work=work)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


def _run(script, **environment):
    """Run a script in its own interpreter; a hang is a failure."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


_LIMIT = """
    import resource
    import numpy as np
    from gradtail import Summary, _core, summarize

    def limit(more):
        with open("/proc/self/statm") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + more, resource.RLIM_INFINITY))

    x = np.random.default_rng(0).standard_normal(1_000_003).astype(np.float32)
"""
needs_linux = pytest.mark.skipif(
    sys.platform != "linux" or "libasan" in os.environ.get("LD_PRELOAD", ""),
    reason="the limit of memory is that of Linux, and AddressSanitizer ends the process at it",
)


@needs_linux
def test_a_team_of_fewer_threads_than_asked_for_does_all_the_work(core):
    script = (
        _LIMIT
        + """
    _core.set_num_threads(1)
    expected = summarize(x, backend="native")
    _core.set_num_threads(300)
    limit(200 << 20)  # no room for 300 stacks
    for _ in range(3):
        assert summarize(x, backend="native") == expected
    """
    )
    done = _run(script)
    assert done.returncode == 0, done.stderr


@needs_linux
def test_want_of_memory_is_an_error_and_not_the_end(core):
    script = (
        _LIMIT
        + """
    _core.set_num_threads(4)
    expected = summarize(x, bits=10, backend="numpy").count
    summarize(x, backend="native")  # the threads are there, their scratch for 4 bits too
    s = Summary(10, backend="native")
    limit(6 << 20)  # room for the scratch of one thread
    try:
        s.update(x)
    except MemoryError:
        pass
    else:
        raise SystemExit("there was memory enough")
    limit(1 << 30)
    assert s == Summary(10, backend="native")
    assert s.update(x).count == expected
    """
    )
    done = _run(script, MALLOC_ARENA_MAX="1")  # else threads have memory of their own in reserve
    assert done.returncode == 0, done.stderr


def test_the_number_of_threads_asked_for_in_the_environment_has_a_bound(core):
    script = "from gradtail import _core; print(_core.num_threads())"
    for text, threads in (("100000", "1024"), ("99999999999999999999", "1024"), ("7", "7")):
        assert _run(script, GRADTAIL_NUM_THREADS=text).stdout.strip() == threads


def test_a_process_may_end_while_a_daemon_thread_is_in_the_pass(core):
    script = """
        import threading, time
        import numpy as np
        from gradtail import summarize

        x = np.ones(1_000_003, np.float32)
        many = [np.ones(1, np.float32)] * 20_000

        def work():
            while True:
                summarize(many, backend="native")
                summarize(x, backend="native")

        threading.Thread(target=work, daemon=True).start()
        time.sleep(0.05)
    """
    for _ in range(5):
        done = _run(script)
        assert done.returncode == 0, done.stderr


_BROKEN = """
    import importlib.abc, sys, warnings

    class Finder(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path, target=None):
            if name == "gradtail._core":
                raise {error}

    sys.meta_path.insert(0, Finder())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        from gradtail import native
        import gradtail
    assert native.core is None
    print(*(f"{{w.category.__name__}}: {{w.message}}" for w in caught), sep="\\n", end="")
"""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("ImportError('no libcudart')", "RuntimeWarning: gradtail: the native extension .*: no libcudart"),
        ("ModuleNotFoundError('no part', name='part')", "RuntimeWarning: gradtail: .*: no part"),
        ("ModuleNotFoundError('none', name='gradtail._core')", ""),
    ],
)
def test_an_extension_that_does_not_load_is_named_once(error, said):
    done = _run(_BROKEN.format(error=error), GRADTAIL_BACKEND="")
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(said, done.stdout), done.stdout


@pytest.mark.parametrize("start", [2**63 - 3, 2**63, np.uint64(2**63 + 5), 10**30])
def test_a_start_beyond_the_range_of_indices_is_refused(backend, start):
    x = np.array([1.0, 2.0, np.nan])
    with pytest.raises(ValueError, match=r"^start: expected an int of at most 9223372036854775804 "):
        summarize(x, start=start, backend=backend)
    assert summarize(x, start=2**63 - 4, backend=backend).first_nonfinite == 2**63 - 2
