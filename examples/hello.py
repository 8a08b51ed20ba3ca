"""One question, one answer, and what it cost.

python examples/hello.py          # the default model (flyweight models pull)
python examples/hello.py toy      # a toy that needs no weights
"""

import sys

import flyweight

model = sys.argv[1] if len(sys.argv) > 1 else "qwen2.5-coder-0.5b"
result = flyweight.solve("Add 3, 4 and 5.", model=model, strategy="self_consistency", n=5)

votes = sum(c.answer_class == 0 for c in result.candidates)
print(f"{result.answer}: {votes} of {len(result.candidates)} samples agree")
print(f"{result.usage.generated_tokens} tokens in {result.usage.seconds:.1f} s")
