"""How well does each verifier tell right samples from wrong ones? AUC on the recorded development pool.

    python -m benchmarks.verifier_auc        # from the committed recordings: no model, seconds

60 questions x 8 samples of Qwen2.5-Coder-0.5B (results/dev60). Overall: all right-wrong pairs. Within: the mean over
the questions that have both, with a bootstrap interval over questions; this is what best-of-n lives on.
"""

from __future__ import annotations

from benchmarks.cassette import Cassette, Recorded
from benchmarks.default_strategy import MAX_TOKENS, QUESTIONS, RECORDINGS, SMALL
from flyweight import stats, strategies, tasks, verifiers
from flyweight.runner import Runner
from flyweight.types import Sampling


def main() -> None:
    print("| verifier | AUC overall | AUC within a question [95 %] |\n|---|---|---|")
    for name in ("arithmetic", "self-certainty", "confidence", "p_true"):
        right, wrong, within = scores(name)
        low, value, high = stats.bootstrap_mean(within)
        print(f"| {name} | {auc(right, wrong):.3f} | {value:.3f} [{low:.3f}, {high:.3f}] |")


def scores(name: str) -> tuple[list[float], list[float], list[float]]:
    """Scores of right samples, of wrong ones, and the AUC of every question that has both."""
    task = tasks.load("gsm8k")
    policy = Recorded(SMALL, 0, Cassette(RECORDINGS / f"{SMALL}-pool.jsonl.gz"))
    runner = Runner(policy, {name: verifiers.load(name)}, answers=task, sampling=Sampling(max_tokens=MAX_TOKENS))
    all_right: list[float] = []
    all_wrong: list[float] = []
    within: list[float] = []
    for result in runner.run(task.problems()[:QUESTIONS], strategies.bind("best_of_n", {"n": 8})):
        right: list[float] = []
        wrong: list[float] = []
        for node in (candidate.node for candidate in result.candidates):
            if node.score is not None:
                correct = task.grade(result.problem, node.solution).value == "correct"
                (right if correct else wrong).append(node.score.value)
        all_right += right
        all_wrong += wrong
        if right and wrong:
            within.append(auc(right, wrong))
    return all_right, all_wrong, within


def auc(right: list[float], wrong: list[float]) -> float:
    """Share of right-wrong pairs ranked the right way round, ties half."""
    return sum((a > b) + 0.5 * (a == b) for a in right for b in wrong) / (len(right) * len(wrong))


if __name__ == "__main__":
    main()
