"""The same questions, several strategies, one warm model: how many are right, for how many tokens.

python examples/compare_strategies.py          # the default model (flyweight models pull)
python examples/compare_strategies.py toy      # a toy that needs no weights
"""

import sys
from typing import Any

from flyweight import Problem, Session

QUESTIONS = {
    "Add 17, 26 and 39.": "82",
    "Add 8, 15, 4 and 23.": "50",
    "Add 31, 12, 9, 27 and 6.": "85",
    "Add 5, 5, 14 and 38.": "62",
}

model = sys.argv[1] if len(sys.argv) > 1 else "qwen2.5-coder-0.5b"
problems = [Problem(id=str(number), prompt=question) for number, question in enumerate(QUESTIONS)]
known = dict(zip([problem.id for problem in problems], QUESTIONS.values(), strict=True))

with Session(model, verifier="arithmetic") as session:
    for strategy in ("greedy", "self_consistency", "best_of_n", "beam_search"):
        parameters: dict[str, Any] = {} if strategy == "greedy" else {"n": 8}
        results = list(session.run(problems, strategy=strategy, **parameters))
        right = sum(result.answer == known[result.problem.id] for result in results)
        tokens = sum(result.usage.generated_tokens + result.usage.verifier_tokens for result in results)
        print(f"{strategy:<18} {right} of {len(results)} right  {tokens:>6,} tokens")
