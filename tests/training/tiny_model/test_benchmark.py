"""The benchmark of GRPO steps on a randomly initialised model."""

from __future__ import annotations

import pytest

from r1ranker_ir.training.tiny_model.benchmark import BenchmarkResult, run_benchmark


def check_figures(result: BenchmarkResult, steps: int, generated: int) -> None:
    """The parts of a step add up to the whole."""
    assert result.steps == steps
    assert 0 < result.rollout_share < 1
    rollout_seconds = result.seconds_per_step * result.rollout_share
    # Every completion has its full length, so what was generated is known.
    assert result.generated_tokens_per_second * rollout_seconds == pytest.approx(generated, rel=1e-6)
    # Prompts are longer than these completions.
    assert result.trained_tokens_per_second * (result.seconds_per_step - rollout_seconds) > 2 * generated


def test_figures_of_a_small_model_on_the_cpu() -> None:
    result = run_benchmark(
        "tiny", steps=2, rollouts=4, num_generations=2, completion_tokens=4, candidates=3, micro_batch=2
    )
    check_figures(result, 2, 16)
    assert result.parameters > 100_000


@pytest.mark.gpu
@pytest.mark.slow
def test_figures_of_3b_on_a_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    if not pytest.importorskip("torch").cuda.is_available():
        pytest.skip("no CUDA device")
    result = run_benchmark("3b", steps=3, rollouts=16, completion_tokens=128, micro_batch=2)
    check_figures(result, 3, 16 * 128)
    assert result.peak_memory_gib is not None and result.peak_memory_gib > 6
    with capsys.disabled():
        print(result)
