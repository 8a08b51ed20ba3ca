"""Our kernels: right inside llama.cpp, the same in any company, and never a reason to fail."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest

from flyweight.policies.llamacpp import kernels as package
from flyweight.policies.llamacpp.context import Context, Floats, Model
from flyweight.policies.llamacpp.kernels import Kernels, Unavailable, kernels
from flyweight.policies.llamacpp.machine import cache_folder

available = isinstance(kernels(), Kernels)
needs_kernels = pytest.mark.skipif(not available, reason=f"no kernels: {kernels()}")


@needs_kernels
def test_products_and_attention_equal_plain_loops() -> None:
    assert package.check(package._built(cache_folder())) == ""


def last_logits(path: Path, tokens: list[list[int]], *, packed: bool, threads: int = 2) -> Floats:
    """Logits after the last token of equally long texts, decoded side by side."""
    model = Model(path, packed=packed)
    context = Context(model, streams=len(tokens), length=64, threads=threads, kv_type="f16", flash_attention=True)
    for position, column in enumerate(zip(*tokens, strict=True)):
        rows = len(tokens)
        context.decode(column, [position] * rows, range(rows), outputs=True, hidden=False)
    logits = context.logits().copy()
    context.close()
    model.close()
    return logits


TEXTS = [[(7 * row + 3 * at) % 200 + 5 for at in range(40)] for row in range(7)]


@needs_kernels
def test_a_row_does_not_depend_on_its_company_nor_on_threads(quantised: Path) -> None:
    together = last_logits(quantised, TEXTS, packed=True)
    for row in (0, 3, 6):
        alone = last_logits(quantised, [TEXTS[row]], packed=True, threads=1)
        assert np.array_equal(alone[0], together[row])


@needs_kernels
def test_packed_weights_are_the_file_s_weights(quantised: Path) -> None:
    ours, stock = (last_logits(quantised, TEXTS, packed=packed) for packed in (True, False))
    assert np.linalg.norm(ours - stock) < 0.02 * np.linalg.norm(stock)
    assert not np.array_equal(ours, stock)  # else the kernels did not run


@needs_kernels
def test_a_prompt_at_once_equals_token_by_token(quantised: Path) -> None:
    model = Model(quantised, packed=True)
    context = Context(model, streams=2, length=64, threads=2, kv_type="f16", flash_attention=True)
    text = TEXTS[0]
    context.decode(text[:-1], range(len(text) - 1), [0] * (len(text) - 1), outputs=False, hidden=False)
    context.decode(text[-1:], [len(text) - 1], [0], outputs=True, hidden=False)
    at_once = context.logits().copy()
    context.close()
    model.close()
    assert np.array_equal(at_once, last_logits(quantised, [text], packed=True))


@needs_kernels
def test_the_kv_takes_memory_as_streams_fill(quantised: Path) -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    model = Model(quantised, packed=True)
    streams, length = 32, 16384
    room = streams * length * model.kv_bytes("f16")
    assert room > 100e6
    before = resident()
    context = Context(model, streams=streams, length=length, threads=1, kv_type="f16", flash_attention=True)
    empty = resident()
    context.decode([5], [0], [0], outputs=True, hidden=False)
    one = resident()
    context.close()
    model.close()
    assert empty - before < room / 4 and one - empty < room / 4


# Drawing -------------------------------------------------------------------------------------------------------------

VOCAB = 20_003  # neither a multiple of 16 nor of the stretches sums are kept over


def table(rows: int) -> Floats:
    rng = np.random.default_rng(5)
    made = rng.standard_normal((rows, VOCAB)) * np.linspace(0.3, 4.0, rows)[:, None]
    made[:, rng.integers(0, VOCAB, 20)] += 9.0
    return made.astype(np.float32)


def our_kernels() -> Kernels:
    found = kernels()
    assert isinstance(found, Kernels)
    return found


@needs_kernels
@pytest.mark.parametrize("temperature", [0.2, 0.7, 1.0, 3.0])
def test_draws_invert_the_cumulative_distribution(temperature: float) -> None:
    logits = table(6)
    uniforms = [0.0, 0.1, 0.5, 0.9, 1 - 1e-12]
    counts = [len(uniforms)] * 6
    done = our_kernels().draw(logits, counts, [temperature] * 30, uniforms * 6, 2)
    for row in range(6):
        exact = logits[row].astype(np.float64)
        p = np.exp((exact - exact.max()) / temperature)
        edges = np.append(0.0, p.cumsum() / p.sum())
        for i, u in enumerate(uniforms):
            token = int(done.token[row * 5 + i])
            assert edges[token] - 2e-6 <= u <= edges[token + 1] + 2e-6
            assert done.logit[row * 5 + i] == logits[row, token]
        assert done.log_total[row] == pytest.approx(math.log(np.exp(exact).sum()), abs=2e-6)
        assert done.mean[row] == pytest.approx(exact.mean(), abs=1e-6)
        assert done.peak[row] == exact.max()


@needs_kernels
def test_temperature_0_takes_the_lowest_of_the_favourites() -> None:
    logits = table(2)
    logits[1, [19_990, 400, 17]] = 50.0
    done = our_kernels().draw(logits, [0, 1], [0.0], [0.99], 1)
    assert done.token.tolist() == [17]


@needs_kernels
@pytest.mark.parametrize("broken", [math.nan, math.inf])
@pytest.mark.parametrize("at", [0, VOCAB - 1])
def test_a_row_that_is_not_finite_shows(broken: float, at: int) -> None:
    logits = table(3)
    logits[1, at] = broken
    done = our_kernels().draw(logits, [1, 1, 1], [0.7] * 3, [0.5] * 3, 2)
    assert np.isfinite(done.peak).tolist() == [True, False, True]


@needs_kernels
def test_tokens_ruled_out_are_never_drawn() -> None:
    logits = np.full((1, VOCAB), -np.inf, np.float32)
    logits[0, [5, 4096, VOCAB - 1]] = 0.0
    done = our_kernels().draw(logits, [4], [1.0] * 4, [0.0, 0.34, 0.67, 1 - 1e-16], 1)
    assert done.token.tolist() == [5, 4096, VOCAB - 1, VOCAB - 1]


# Where there are none ------------------------------------------------------------------------------------------------


@needs_kernels
def test_switched_off(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FLYWEIGHT_KERNELS", "off")
    with pytest.raises(Unavailable, match="FLYWEIGHT_KERNELS=off"):
        package._built(tmp_path)
    assert package.outlook() == (False, "FLYWEIGHT_KERNELS=off")


@needs_kernels
def test_the_outlook_compiles_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert package.outlook() == (True, "built for this processor")
    monkeypatch.setenv("FLYWEIGHT_HOME", os.fspath(tmp_path))
    able, said = package.outlook()
    assert able and "at the first use" in said and not list(tmp_path.iterdir())


def test_another_processor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(package, "cpu_flags", lambda: frozenset({"avx512f", "avx512bw", "avx512dq", "avx512vl"}))
    with pytest.raises(Unavailable, match="no avx512_vnni"):
        package._built(tmp_path)


@needs_kernels
def test_no_compiler_is_not_remembered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(Unavailable, match="no C\\+\\+ compiler"):
        package._built(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["kernels.lock"]


@needs_kernels
def test_a_compiler_that_fails_is_asked_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "broken-c++"
    broken.write_text("#!/bin/sh\necho >> $0.calls\necho 'x.cpp:1: error: no such thing' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    for _ in range(2):
        with pytest.raises(Unavailable, match=r"cannot compile them: x\.cpp:1: error: no such thing"):
            package._built(tmp_path / "kept")
    assert Path(f"{broken}.calls").read_text() == "\n"
    assert not list((tmp_path / "kept").glob("*.partial"))


@needs_kernels
@pytest.mark.parametrize(
    ("body", "said"),
    [("*(volatile int *) 0 = 0;", "exit code -11"), ('snprintf(to, n, "off by 2");', "off by 2")],
    ids=["crash", "wrong"],
)
def test_a_build_that_fails_its_trial_is_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, body: str, said: str
) -> None:
    (tmp_path / "plugin.cpp").write_text(
        "#include <cstdio>\n#include <cstddef>\n"
        'extern "C" void flyweight_register() {}\n'
        f'extern "C" void flyweight_check(char * to, size_t n) {{ (void) to; (void) n; {body} }}\n'
    )
    monkeypatch.setattr(package, "SOURCES", tmp_path)
    for _ in range(2):
        with pytest.raises(Unavailable, match=f"do not work .*{said}"):
            package._built(tmp_path / "kept")
    (verdict,) = (tmp_path / "kept").glob("*.json")
    assert said in json.loads(verdict.read_text())["unavailable"]


@needs_kernels
def test_a_folder_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FLYWEIGHT_HOME", os.fspath(tmp_path / "file"))
    kernels.cache_clear()
    try:
        found = kernels()
        assert isinstance(found, Unavailable) and "cannot be kept" in str(found) and "\n" not in str(found)
    finally:
        kernels.cache_clear()
